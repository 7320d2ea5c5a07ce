package nodecerts

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// Signers are the cluster's CAs by their File in the certificate plan.
type Signers map[string]*pki.CA

// external lists those whose keys are kept elsewhere.
func (s Signers) external(n Node) []string {
	var out []string
	for _, row := range Certificates(n.Plan.Cluster) {
		if row.IsCA() && s[row.File].KeyPEM.IsZero() {
			out = append(out, row.File)
		}
	}
	return out
}

// Provided reads from the folder dir the certificates and kubeconfigs of a node that
// somebody else has issued, and checks that they fit the node. Those of a CA whose key
// is kept elsewhere must be there; others may. A kubeconfig without a certificate is
// completed with NAME.conf.crt beside it, one without a CA with the cluster's.
//
// Its errors name every file that is missing or does not fit, and what would be right;
// warnings are what is allowed but seldom meant.
func Provided(dir string, n Node, cas Signers, now time.Time) (files []pki.ProvidedFile, warnings []string, err error) {
	have, err := readFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	external := cas.external(n)
	if len(have) == 0 && len(external) == 0 {
		return nil, nil, nil
	}
	if !n.Address.IsValid() {
		return nil, nil, fmt.Errorf("node %s asks for its address when it starts, and certificates that are made before name it: give the node an address in the cluster file", n.Name)
	}
	in, err := n.SANInput()
	if err != nil {
		return nil, nil, err
	}
	c := collector{dir: dir, have: have, used: map[string]bool{}}
	for _, row := range Certificates(n.Plan.Cluster) {
		if row.IsCA() {
			continue
		}
		spec, err := row.Leaf(in)
		if err != nil {
			return nil, nil, err
		}
		c.leaf(row, spec, cas[row.Signer], slices.Contains(external, row.Signer), now)
	}
	for _, row := range Kubeconfigs(n.Plan.Role) {
		c.kubeconfig(n, row, cas["ca"], slices.Contains(external, "ca"), now)
	}
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if !c.used[p] {
			c.bad(p, "is no file of node %s; want names of /etc/kubernetes, such as pki/apiserver.crt and pki/apiserver.key, or admin.conf; CAs and sa.key are in the folder of the cluster's secrets", n.Name)
		}
	}
	if len(c.errs) == 0 {
		return c.files, c.warnings, nil
	}
	head := fmt.Sprintf("the certificates that are provided for node %s do not fit", n.Name)
	if len(external) > 0 {
		keys := make([]string, len(external))
		for i, e := range external {
			keys[i] = e + ".key"
		}
		head = fmt.Sprintf("%s is not among the cluster's secrets: put it back or, if it is kept elsewhere (an external CA), provide what it signs for node %s; imagegen csr makes the requests",
			strings.Join(keys, ", "), n.Name)
	}
	return nil, nil, fmt.Errorf("%s:\n%w", head, errors.Join(c.errs...))
}

// collector collects the files that fit and what is wrong with the others.
type collector struct {
	dir      string
	have     map[string]secret.Value
	used     map[string]bool
	files    []pki.ProvidedFile
	warnings []string
	errs     []error
}

func (c *collector) bad(path, format string, a ...any) {
	c.errs = append(c.errs, fmt.Errorf("\t%s: %w", filepath.Join(c.dir, filepath.FromSlash(path)), fmt.Errorf(format, a...)))
}

func (c *collector) get(path string) (secret.Value, bool) {
	c.used[path] = true
	v, ok := c.have[path]
	return v, ok
}

func (c *collector) leaf(row pki.Certificate, spec pki.LeafSpec, ca *pki.CA, needed bool, now time.Time) {
	base := "pki/" + row.File
	crt, haveCert := c.get(base + ".crt")
	key, haveKey := c.get(base + ".key")
	c.get(base + ".csr")
	switch {
	case !haveCert && needed:
		c.bad(base+".crt", "is missing; %s", wanted(spec, ca))
	case !haveCert: // a request that nobody signed, and the node need not have
	case !haveKey:
		c.bad(base+".key", "is missing: the certificate beside it is no use without its key")
	default:
		if err := CheckLeaf(crt.Reveal(), key, spec, ca, now); err != nil {
			c.bad(base+".crt", "%w; %s", err, wanted(spec, ca))
			return
		}
		c.files = append(c.files, pki.ProvidedFile{Path: base + ".crt", Data: crt}, pki.ProvidedFile{Path: base + ".key", Data: key, Private: true})
	}
}

func (c *collector) kubeconfig(n Node, row pki.KubeconfigPlan, ca *pki.CA, needed bool, now time.Time) {
	conf, have := c.get(row.File)
	crt, haveCert := c.get(row.File + ".crt")
	c.get(row.File + ".csr")
	spec := row.Leaf(n.Name)
	if !have {
		if needed || haveCert {
			c.bad(row.File, "is missing; want a kubeconfig of %s whose certificate is %s", n.Server(row), strings.TrimPrefix(wanted(spec, ca), "want "))
		}
		return
	}
	cluster, auth, err := parts(conf.Reveal())
	if err != nil {
		c.bad(row.File, "%w", err)
		return
	}
	if auth.ClientCertificate != "" || auth.ClientKey != "" || cluster.CertificateAuthority != "" {
		c.bad(row.File, "it refers to files, which the node does not have; want certificate-authority-data, client-certificate-data and client-key-data")
		return
	}
	if len(auth.ClientCertificateData) == 0 && !haveCert && !needed {
		return // as above
	}
	if cluster.Server != n.Server(row) {
		c.warnings = append(c.warnings, fmt.Sprintf("%s: server %s, and that of the cluster file is %s; the former is used", filepath.Join(c.dir, row.File), cluster.Server, n.Server(row)))
	}
	if len(auth.ClientCertificateData) == 0 {
		if !haveCert {
			c.bad(row.File+".crt", "is missing, and %s holds no certificate; %s", row.File, wanted(spec, ca))
			return
		}
		auth.ClientCertificateData = crt.Reveal()
	} else if haveCert {
		c.bad(row.File+".crt", "%s holds a certificate already: remove one of the two", row.File)
		return
	}
	if len(cluster.CertificateAuthorityData) == 0 {
		cluster.CertificateAuthorityData = ca.CertPEM
	}
	// Rendered anew, it has what is checked and nothing else.
	if err := pki.CheckPair(auth.ClientCertificateData, secret.New(auth.ClientKeyData)); err != nil {
		c.bad(row.File, "its client certificate: %w; %s", err, wanted(spec, ca))
		return
	}
	whole, err := pki.Kubeconfig{
		ClusterName: n.Plan.Cluster.Name, Server: cluster.Server, CACertPEM: cluster.CertificateAuthorityData,
		CertPEM: auth.ClientCertificateData, KeyPEM: secret.New(auth.ClientKeyData),
	}.Render()
	if err == nil {
		err = CheckKubeconfig(whole.Reveal(), "", spec, ca, now)
	}
	if err != nil {
		c.bad(row.File, "%w; %s", err, wanted(spec, ca))
		return
	}
	c.files = append(c.files, pki.ProvidedFile{Path: row.File, Data: whole, Private: true})
}

// readFolder reads all files below dir, by their paths; a folder that does not exist
// has none. What may hold a key must be readable by its owner alone.
func readFolder(dir string) (map[string]secret.Value, error) {
	out := map[string]secret.Value{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		public := strings.HasSuffix(path, ".crt") || strings.HasSuffix(path, ".csr")
		if !public && st.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s holds a key but has mode %04o: others may read it; run: chmod 600 %s", path, st.Mode().Perm(), path)
		}
		data, err := os.ReadFile(path)
		out[filepath.ToSlash(rel)] = secret.New(data)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return out, err
}
