package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/joinconfig"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/kubeadmconfig"
	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/strict"
	"github.com/kiln-os/kiln/pki"
)

func (a *app) generateCSRCommand(dir *string) *cobra.Command {
	var config, conf string
	c := &cobra.Command{
		Use: "generate-csr", Short: "Make keys and certificate requests for an external CA", Args: noArgs,
		Long: `Make keys and certificate requests for all certificates and kubeconfigs of this control
plane, as kubeadm certs generate-csr does: NAME.key and NAME.csr, and kubeconfigs with a
key, NAME.conf, each beside its NAME.conf.csr. Have them signed; a certificate goes beside
its key as NAME.crt, that of a kubeconfig, in base64, into client-certificate-data.

Names and addresses are those of the boot plan and of this machine, or of kubeadm's
documents ClusterConfiguration and InitConfiguration in the file of --config. Nothing
that is there already is replaced. Before a node exists, imagegen csr makes its requests.`,
		Example: `  firstboot certs generate-csr --cert-dir /root/csr/pki --kubeconfig-dir /root/csr
  firstboot certs generate-csr --config kubeadm.yaml --cert-dir csr/pki --kubeconfig-dir csr
  openssl req -in /root/csr/pki/apiserver.csr -noout -text`,
		RunE: func(*cobra.Command, []string) error {
			n, err := a.requestingNode(config)
			if err != nil {
				return err
			}
			return a.generateCSRs(n, *dir, conf)
		},
	}
	c.Flags().StringVar(&conf, "kubeconfig-dir", "", "folder of the kubeconfigs (default /etc/kubernetes)")
	c.Flags().StringVar(&config, "config", "", "file of kubeadm's documents (default the boot plan)")
	return c
}

func (a *app) generateCSRs(n nodecerts.Node, dir, conf string) error {
	alg, err := pki.ParseAlgorithm(n.Plan.Cluster.EncryptionAlgorithm)
	if err != nil {
		return planError{err}
	}
	r := nodecerts.Requests{PKI: dir, Kubeconfigs: conf, Algorithm: alg}
	if r.PKI == "" {
		a.paths.CertificatesDir = n.Plan.Cluster.CertificatesDir()
		r.PKI = a.paths.PKI()
	}
	if r.Kubeconfigs == "" {
		r.Kubeconfigs = a.paths.At("/etc/kubernetes")
	}
	made, err := r.Write(n)
	for _, f := range made {
		if _, err := fmt.Fprintln(a.Out, f); err != nil {
			return err
		}
	}
	return err
}

// requestingNode is the control plane that certificates are requested for: that of the
// documents, or of the boot plan as the node has carried it out.
func (a *app) requestingNode(config string) (nodecerts.Node, error) {
	var n nodecerts.Node
	if config != "" {
		data, err := os.ReadFile(config)
		if err != nil {
			return n, usageError{fmt.Errorf("--config: %w", err)}
		}
		if n, err = readKubeadmConfig(config, data); err != nil {
			return n, usageError{err}
		}
	} else {
		plan, err := a.nodePlan()
		if err != nil {
			return n, err
		}
		switch {
		case plan == nil:
			return n, usageError{errors.New("this machine has no boot plan, so give --config FILE with kubeadm's ClusterConfiguration and InitConfiguration")}
		case plan.Role == bootplan.RoleJoinWorker:
			return n, planError{errors.New("this node is a worker: the certificates are those of control planes")}
		}
		joined, err := joinconfig.Load(nodeconfig.Config{Plan: *plan}, a.paths)
		if err != nil {
			return n, planError{err}
		}
		n = nodecerts.Node{Plan: joined.Plan, Name: plan.Node.Name}
		if n.Address, err = netip.ParseAddr(plan.Node.AdvertiseAddress); plan.Node.AdvertiseAddress != "" && err != nil {
			return n, planError{fmt.Errorf("boot plan: node.advertiseAddress: %w", err)}
		}
	}
	var err error
	if n.Name == "" {
		if n.Name, err = os.Hostname(); err != nil {
			return n, err
		}
		n.Name = strings.ToLower(n.Name)
	}
	if !n.Address.IsValid() {
		if n.Address, err = defaultAddress(n.Plan, a.paths); err != nil {
			return n, fmt.Errorf("the address of the API server: %w; name it as localAPIEndpoint.advertiseAddress of an InitConfiguration with --config", err)
		}
	}
	return n, nil
}

// readKubeadmConfig reads what certificates depend on from kubeadm's documents. It
// reports every mistake with its place.
func readKubeadmConfig(file string, data []byte) (nodecerts.Node, error) {
	var cluster kubeadmapi.ClusterConfiguration
	var init kubeadmapi.InitConfiguration
	docs, list := diag.ParseAll(filepath.Base(file), data)
	kind := diag.Path{"kind"}
	seen := map[string]bool{}
	for _, doc := range docs {
		d := &strict.Decoder{Doc: doc, List: &list, Forms: map[reflect.Type][2]string{
			reflect.TypeFor[metav1.Duration](): {"a duration", "such as 8760h"},
			reflect.TypeFor[metav1.Time]():     {"a time", "such as 2030-01-31T12:00:00Z"},
		}}
		k, v := doc.Text(kind), doc.Text(diag.Path{"apiVersion"})
		if seen[k] {
			list.Add(doc.At(kind, "there is a second document of kind "+k, "keep one of them"))
			continue
		}
		seen[k] = true
		switch {
		case k != kubeadmapi.Kind && k != kubeadmapi.KindInit:
			list.Add(doc.At(kind, fmt.Sprintf("%q is not a document that certificates depend on", k), "want "+kubeadmapi.Kind+" and "+kubeadmapi.KindInit))
		case v != kubeadmapi.APIVersion:
			list.Add(doc.At(diag.Path{"apiVersion"}, fmt.Sprintf("%q is not the version that this program reads", v), "want "+kubeadmapi.APIVersion+"; kubeadm config migrate converts older ones"))
		case k == kubeadmapi.Kind:
			d.Decode(&cluster, "a "+k, "")
			checkClusterConfiguration(d, cluster)
		default:
			d.Decode(&init, "an "+k, "")
			checkInitConfiguration(d, init)
		}
	}
	if len(docs) == 0 && len(list) == 0 {
		list.Add(diag.Mistake{File: filepath.Base(file), Message: "the file is empty", Want: "want " + kubeadmapi.Kind + " and " + kubeadmapi.KindInit})
	}
	if list.Sort(); len(list) > 0 {
		for i := range list {
			list[i].Source = "" // it may be a token's line
		}
		return nodecerts.Node{}, list
	}
	plan := bootplan.Plan{Role: bootplan.RoleInit}
	var err error
	if plan.Cluster, err = kubeadmconfig.ToPlan(bootplan.Cluster{}, cluster); err != nil {
		return nodecerts.Node{}, fmt.Errorf("%s: %w", file, err)
	}
	plan.Node.APIPort = int(init.LocalAPIEndpoint.BindPort)
	n := nodecerts.Node{Plan: plan, Name: strings.ToLower(strings.TrimSpace(init.NodeRegistration.Name))}
	if s := init.LocalAPIEndpoint.AdvertiseAddress; s != "" {
		if n.Address, err = netip.ParseAddr(s); err != nil {
			return n, fmt.Errorf("%s: localAPIEndpoint.advertiseAddress: %w", file, err)
		}
	}
	return n, nil
}

func checkClusterConfiguration(d *strict.Decoder, c kubeadmapi.ClusterConfiguration) {
	if e := c.ControlPlaneEndpoint; e != "" {
		if _, _, err := bootplan.SplitEndpoint(e); err != nil {
			d.RejectAt(diag.Path{"controlPlaneEndpoint"}, fmt.Sprintf("%q is not an endpoint", e), "such as api.example.org:6443, 10.0.2.15 or [fd00::101]:6443")
		}
	}
	if _, err := pki.ParseAlgorithm(c.EncryptionAlgorithm); err != nil {
		d.RejectAt(diag.Path{"encryptionAlgorithm"}, err.Error(), "")
	}
	for _, s := range strings.Split(c.Networking.ServiceSubnet, ",") {
		if _, err := netip.ParsePrefix(strings.TrimSpace(s)); s != "" && err != nil {
			d.RejectAt(diag.Path{"networking", "serviceSubnet"}, fmt.Sprintf("%q is not an address with a prefix length", s), "such as 10.96.0.0/12")
		}
	}
}

func checkInitConfiguration(d *strict.Decoder, c kubeadmapi.InitConfiguration) {
	if s := c.LocalAPIEndpoint.AdvertiseAddress; s != "" {
		if addr, err := netip.ParseAddr(s); err != nil || !addr.IsGlobalUnicast() {
			d.RejectAt(diag.Path{"localAPIEndpoint", "advertiseAddress"}, fmt.Sprintf("%q is not the address of a machine", s), "such as 10.0.2.15 or fd00::101")
		}
	}
	if p := c.LocalAPIEndpoint.BindPort; p < 0 || p > 65535 {
		d.RejectAt(diag.Path{"localAPIEndpoint", "bindPort"}, fmt.Sprintf("%d is not a port", p), "such as 6443")
	}
	if s := strings.ToLower(strings.TrimSpace(c.NodeRegistration.Name)); s != "" {
		if problems := validation.IsDNS1123Subdomain(s); len(problems) > 0 {
			d.RejectAt(diag.Path{"nodeRegistration", "name"}, fmt.Sprintf("%q is not the name of a node", s), "want at most 253 of a-z, 0-9, - and .")
		}
	}
}
