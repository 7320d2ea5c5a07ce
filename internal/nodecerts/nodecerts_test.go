package nodecerts

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/nodecerts/certstest"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/pki"
)

func node(change func(*Node)) Node {
	n := Node{Name: "kiln-1", Address: netip.MustParseAddr("10.0.2.15"), Plan: bootplan.Plan{
		Role: bootplan.RoleInit,
		Cluster: bootplan.Cluster{
			Name: "demo", ControlPlaneEndpoint: "api.example.org:7443", CertSANs: []string{"192.0.2.9"},
			ServiceSubnets: []string{"10.96.0.0/12"}, DNSDomain: "cluster.local", EncryptionAlgorithm: "ECDSA-P256",
		},
	}}
	if change != nil {
		change(&n)
	}
	return n
}

// external makes CAs in a folder, and returns them without their keys.
func external(t *testing.T, dir string) Signers {
	t.Helper()
	if err := certstest.WriteCAs(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	out := Signers{}
	for _, f := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
		data, err := os.ReadFile(filepath.Join(dir, f+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		if out[f], err = pki.LoadCA(data, secret.Value{}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestRequests: a request has the subject and the names of the certificate that the CA
// would issue, and openssl agrees that its key has signed it.
func TestRequests(t *testing.T) {
	n := node(nil)
	dir := t.TempDir()
	r := Requests{PKI: filepath.Join(dir, "pki"), Kubeconfigs: dir, Algorithm: pki.ECDSAP256}
	made, err := r.Write(n)
	if err != nil {
		t.Fatal(err)
	}
	in, err := n.SANInput()
	if err != nil {
		t.Fatal(err)
	}
	specs := map[string]pki.LeafSpec{}
	for _, row := range Certificates(n.Plan.Cluster) {
		if !row.IsCA() {
			if specs["pki/"+row.File+".csr"], err = row.Leaf(in); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range Kubeconfigs(n.Plan.Role) {
		specs[row.File+".csr"] = row.Leaf(n.Name)
	}
	if len(made) != 12 || len(specs) != 12 {
		t.Fatalf("%d requests for %d certificates", len(made), len(specs))
	}
	ca, err := pki.NewCA(pki.Certificates()[0], pki.ECDSAP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for file, spec := range specs {
		path := filepath.Join(dir, file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(strings.TrimSuffix(path, ".csr")); err == nil && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has a key and mode %o", file, st.Mode().Perm())
		}
		req, err := pki.ParseRequest(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		issued, _, err := ca.Issue(spec, pki.ECDSAP256, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.ParseCertificate(issued)
		if err != nil {
			t.Fatal(err)
		}
		if req.Subject.String() != cert.Subject.String() || !slices.Equal(req.DNSNames, cert.DNSNames) || !slices.EqualFunc(req.IPAddresses, cert.IPAddresses, net.IP.Equal) {
			t.Errorf("%s asks for %s %v %v, the CA issues %s %v %v", file, req.Subject, req.DNSNames, req.IPAddresses, cert.Subject, cert.DNSNames, cert.IPAddresses)
		}
		if out, err := testtools.Command(t, "openssl", "req", "-in", path, "-noout", "-verify").CombinedOutput(); err != nil || !strings.Contains(string(out), "verify OK") {
			t.Errorf("%s: openssl: %v\n%s", file, err, out)
		}
	}

	// Nothing is replaced, and all that is in the way is named.
	before, err := os.ReadFile(filepath.Join(dir, "pki/apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Write(n)
	if err == nil || strings.Count(err.Error(), "exists already: nothing was written") != 24 {
		t.Errorf("a second time: %v", err)
	}
	// With Keep a changed node gets another request for the same key, and a request that
	// fits stays as it is.
	r.Keep = true
	proxy, err := os.ReadFile(filepath.Join(dir, "pki/front-proxy-client.csr"))
	if err != nil {
		t.Fatal(err)
	}
	n.Plan.Cluster.CertSANs = append(n.Plan.Cluster.CertSANs, "new.example.org")
	if _, err := r.Write(n); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, "pki/apiserver.key"))
	same, _ := os.ReadFile(filepath.Join(dir, "pki/front-proxy-client.csr"))
	data, _ := os.ReadFile(filepath.Join(dir, "pki/apiserver.csr"))
	if req, err := pki.ParseRequest(data); err != nil || !slices.Contains(req.DNSNames, "new.example.org") || string(before) != string(after) || string(proxy) != string(same) {
		t.Errorf("made again: %v", err)
	}
}

// TestRequestsOfOtherNodes: a node that joins has fewer kubeconfigs, and with an external
// etcd there are none of its certificates.
func TestRequestsOfOtherNodes(t *testing.T) {
	n := node(func(n *Node) {
		n.Plan.Role = bootplan.RoleJoinControlPlane
		n.Plan.Cluster.Kubeadm.Etcd.External = &kubeadmapi.ExternalEtcd{Endpoints: []string{"https://10.0.2.20:2379"}}
	})
	dir := t.TempDir()
	made, err := Requests{PKI: dir, Kubeconfigs: dir, Algorithm: pki.ECDSAP256, Skip: func(ca string) bool { return ca == "front-proxy-ca" }}.Write(n)
	for i := range made {
		made[i] = filepath.Base(made[i])
	}
	if want := []string{"apiserver.csr", "apiserver-kubelet-client.csr", "admin.conf.csr", "controller-manager.conf.csr", "scheduler.conf.csr"}; err != nil || !slices.Equal(made, want) {
		t.Errorf("%v, %v", made, err)
	}
}

// TestProvided: what an external CA has signed is taken if all of it fits; otherwise
// every file is named, with what would be right.
func TestProvided(t *testing.T) {
	now := time.Now()
	const apiserver = `want one of CA "CN=kubernetes" with CN=kube-apiserver, for serverAuth, with the names DNS:kiln-1 DNS:kubernetes`
	for name, tc := range map[string]struct {
		node   func(*Node)
		damage func(t *testing.T, dir, cas string)
		want   []string
	}{
		"all of it": {},
		"nothing": {damage: func(t *testing.T, dir, _ string) { check(t, os.RemoveAll(dir)) }, want: []string{
			"ca.key, front-proxy-ca.key, etcd/ca.key is not among the cluster's secrets: put it back or, if it is kept elsewhere (an external CA), provide what it signs for node kiln-1; imagegen csr makes the requests",
			"pki/apiserver.crt: is missing; " + apiserver, "pki/etcd/peer.crt: is missing", "super-admin.conf: is missing; want a kubeconfig of https://api.example.org:7443 whose certificate is one of CA \"CN=kubernetes\" with CN=kubernetes-super-admin, O=system:masters, for clientAuth",
			"scheduler.conf: is missing; want a kubeconfig of https://10.0.2.15:6443"}},
		"unsigned":    {damage: rm("pki/apiserver.crt", "scheduler.conf.crt"), want: []string{"pki/apiserver.crt: is missing", "scheduler.conf.crt: is missing, and scheduler.conf holds no certificate; want one of CA"}},
		"without key": {damage: rm("pki/apiserver.key"), want: []string{"pki/apiserver.key: is missing: the certificate beside it is no use without its key"}},
		"another key": {damage: move("pki/etcd/peer.key", "pki/etcd/server.key"), want: []string{`pki/etcd/server.crt: the key is not the key of certificate "CN=kiln-1"; want one of CA "CN=etcd-ca"`}},
		"of another CA": {damage: func(t *testing.T, dir, _ string) {
			other := t.TempDir()
			check(t, certstest.WriteCAs(other, now))
			check(t, certstest.Sign(other, dir, now))
		}, want: []string{`pki/apiserver.crt: certificate "CN=kube-apiserver" does not chain to CA "CN=kubernetes"`, "pki/front-proxy-client.crt", "admin.conf: its client certificate"}},
		"expired": {damage: func(t *testing.T, dir, cas string) { check(t, certstest.Sign(cas, dir, now.Add(-48*time.Hour))) },
			want: []string{"pki/apiserver.crt: certificate", "has expired"}},
		"of another address": {node: func(n *Node) { n.Address = netip.MustParseAddr("10.0.2.16") }, want: []string{"pki/apiserver.crt: no subject alternative name 10.0.2.16; want", "pki/etcd/peer.crt: no subject alternative name 10.0.2.16", "IP:10.0.2.16"}},
		"of another name":    {node: func(n *Node) { n.Name = "kiln-2" }, want: []string{"pki/apiserver.crt: no subject alternative name kiln-2", `pki/etcd/server.crt: common name "kiln-1", want "kiln-2"`, `kubelet.conf: its client certificate: common name "system:node:kiln-1", want "system:node:kiln-2"`}},
		"no address":         {node: func(n *Node) { n.Address = netip.Addr{} }, want: []string{"node kiln-1 asks for its address when it starts", "give the node an address in the cluster file"}},
		"not a kubeconfig":   {damage: put("admin.conf", "hunter2: ["), want: []string{"admin.conf: it is not a kubeconfig"}},
		"unknown file":       {damage: put("pki/apisrver.crt", "x"), want: []string{"pki/apisrver.crt: is no file of node kiln-1; want names of /etc/kubernetes"}},
		"readable":           {damage: chmod("pki/apiserver.key"), want: []string{"pki/apiserver.key holds a key but has mode 0644: others may read it; run: chmod 600"}},
		"text":               {damage: put("pki/apiserver.crt", "hunter2"), want: []string{"pki/apiserver.crt: no PEM block of type CERTIFICATE; want"}},
	} {
		t.Run(name, func(t *testing.T) {
			cas, dir := t.TempDir(), filepath.Join(t.TempDir(), "kiln-1")
			signers := external(t, cas)
			_, err := Requests{PKI: filepath.Join(dir, "pki"), Kubeconfigs: dir, Algorithm: pki.ECDSAP256}.Write(node(nil))
			check(t, err)
			check(t, certstest.Sign(cas, dir, now))
			if tc.damage != nil {
				tc.damage(t, dir, cas)
			}
			files, warnings, err := Provided(dir, node(tc.node), signers, now)
			if len(tc.want) == 0 {
				if err != nil || len(files) != 7*2+5 || len(warnings) > 0 {
					t.Errorf("%d files, %v, %v", len(files), warnings, err)
				}
				return
			}
			if err == nil || len(files) > 0 {
				t.Fatalf("accepted, %d files", len(files))
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Errorf("the error quotes a file: %v", err)
			}
		})
	}
}

// TestProvidedKubeconfig: the finished file has the CA of the cluster and a server that
// may be another one, which is said.
func TestProvidedKubeconfig(t *testing.T) {
	now := time.Now()
	cas, dir := t.TempDir(), t.TempDir()
	signers := external(t, cas)
	n := node(nil)
	_, err := Requests{PKI: filepath.Join(dir, "pki"), Kubeconfigs: dir, Algorithm: pki.ECDSAP256}.Write(n)
	check(t, err)
	check(t, certstest.Sign(cas, dir, now))
	n.Plan.Cluster.ControlPlaneEndpoint = "api.example.org:8443"
	files, warnings, err := Provided(dir, n, signers, now)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "admin.conf: server https://api.example.org:7443, and that of the cluster file is https://api.example.org:8443") {
		t.Fatalf("%v, %v", warnings, err)
	}
	in, err := n.SANInput()
	check(t, err)
	var confs int
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".crt") == f.Private {
			t.Errorf("%s: private %v", f.Path, f.Private)
		}
		for _, row := range Kubeconfigs(n.Plan.Role) {
			if row.File == f.Path {
				confs++
				if err := CheckKubeconfig(f.Data.Reveal(), "", row.Leaf(in.NodeName), signers["ca"], now); err != nil {
					t.Errorf("%s: %v", f.Path, err)
				}
			}
		}
	}
	if confs != 5 {
		t.Errorf("%d kubeconfigs", confs)
	}
	// A CA whose key is here needs nothing, and leftovers of its requests do no harm.
	own, err := pki.NewCA(pki.Certificates()[0], pki.ECDSAP256, now)
	check(t, err)
	for f := range signers {
		signers[f] = own
	}
	for _, f := range []string{"pki/apiserver.crt", "pki/etcd"} {
		check(t, os.RemoveAll(filepath.Join(dir, f)))
	}
	if _, _, err := Provided(t.TempDir(), n, signers, now); err != nil {
		t.Error(err)
	}
	files, _, err = Provided(unsigned(t, n), n, signers, now)
	if err != nil || len(files) > 0 {
		t.Errorf("requests that nobody has signed: %d files, %v", len(files), err)
	}
	_, _, err = Provided(dir, n, signers, now)
	if err == nil || !strings.Contains(err.Error(), "the certificates that are provided for node kiln-1 do not fit:") || strings.Contains(err.Error(), "apiserver.crt") {
		t.Errorf("of another CA: %v", err)
	}
}

// TestGuide: what docs/guide.md has openssl do gives certificates that are accepted.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	check(t, err)
	_, rest, ok := strings.Cut(string(guide), "# in out/secrets/nodes/NODE; CAS is where")
	script, _, end := strings.Cut(rest, "\n```")
	_, script, _ = strings.Cut(script, "\n")
	if !ok || !end {
		t.Fatal("docs/guide.md does not say how to sign requests with openssl")
	}
	cas, dir, bin := t.TempDir(), t.TempDir(), t.TempDir()
	signers := external(t, cas)
	_, err = Requests{PKI: filepath.Join(dir, "pki"), Kubeconfigs: dir, Algorithm: pki.ECDSAP256}.Write(node(nil))
	check(t, err)
	openssl := testtools.Command(t, "openssl")
	wrapper := "#!/bin/sh\nexec"
	for _, a := range openssl.Args {
		wrapper += " '" + a + "'"
	}
	check(t, os.WriteFile(filepath.Join(bin, "openssl"), []byte(wrapper+" \"$@\"\n"), 0o755))
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), openssl.Env...), "CAS="+cas, "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, _, err := Provided(dir, node(nil), signers, time.Now())
	if err != nil || len(files) != 7*2+5 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestUsages(t *testing.T) {
	now := time.Now()
	ca, err := pki.NewCA(pki.Certificates()[0], pki.ECDSAP256, now)
	check(t, err)
	client, server := pki.Kubeconfigs()[0].Leaf(""), pki.LeafSpec{CN: "kubernetes-admin", O: []string{"kubeadm:cluster-admins"}, Usages: nil}
	row, err := pki.CertificateFor("apiserver")
	check(t, err)
	server.Usages = row.Usages
	cert, key, err := ca.Issue(server, pki.ECDSAP256, now)
	check(t, err)
	if err := CheckLeaf(cert, key, client, ca, now); err == nil || err.Error() != "no extended key usage clientAuth" {
		t.Error(err)
	}
	check(t, CheckLeaf(cert, key, server, ca, now))
	nobody := client
	nobody.O = nil
	cert, key, err = ca.Issue(nobody, pki.ECDSAP256, now)
	check(t, err)
	if err := CheckLeaf(cert, key, client, ca, now); err == nil || err.Error() != fmt.Sprintf("organizations %q, want %q", []string(nil), client.O) {
		t.Error(err)
	}
}

// unsigned is a folder with requests alone.
func unsigned(t *testing.T, n Node) string {
	t.Helper()
	dir := t.TempDir()
	_, err := Requests{PKI: filepath.Join(dir, "pki"), Kubeconfigs: dir, Algorithm: pki.ECDSAP256}.Write(n)
	check(t, err)
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rm(names ...string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) {
		for _, n := range names {
			check(t, os.Remove(filepath.Join(dir, n)))
		}
	}
}

func move(from, to string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) {
		data, err := os.ReadFile(filepath.Join(dir, from))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, to), data, 0o600))
	}
}

func put(name, text string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
}

func chmod(name string) func(*testing.T, string, string) {
	return func(t *testing.T, dir, _ string) { check(t, os.Chmod(filepath.Join(dir, name), 0o644)) }
}
