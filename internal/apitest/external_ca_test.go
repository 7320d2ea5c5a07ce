//go:build integration

package apitest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/nodecerts/certstest"
	"github.com/kiln-os/kiln/internal/phases/certs"
	"github.com/kiln-os/kiln/internal/phases/kubeconfig"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// TestExternalCA takes a node whose CAs' keys are kept elsewhere from requests, as
// imagegen csr makes them, over what imagegen build bakes in, to a control plane.
func TestExternalCA(t *testing.T) {
	c := New(t, nil)
	now := time.Now()
	cas, folder := t.TempDir(), filepath.Join(t.TempDir(), c.Config.NodeName)
	node := nodecerts.Node{Plan: c.Config.Plan, Name: c.Config.NodeName, Address: c.Config.AdvertiseAddress}
	if err := certstest.WriteCAs(cas, now); err != nil {
		t.Fatal(err)
	}
	requests := nodecerts.Requests{PKI: filepath.Join(folder, "pki"), Kubeconfigs: folder, Algorithm: pki.ECDSAP256, Keep: true}
	if _, err := requests.Write(node); err != nil {
		t.Fatal(err)
	}
	if err := certstest.Sign(cas, folder, now); err != nil {
		t.Fatal(err)
	}
	// The node has the CAs' certificates, the service-account pair, and what is provided.
	signers := nodecerts.Signers{}
	for _, row := range nodecerts.Certificates(c.Config.Plan.Cluster) {
		for _, ext := range []string{".crt", ".key"} {
			if err := os.Remove(c.Paths.PKI(row.File + ext)); err != nil {
				t.Fatal(err)
			}
		}
		if !row.IsCA() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(cas, row.File+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, c.Paths.PKI(row.File+".crt"), data)
		if signers[row.File], err = pki.LoadCA(data, secret.Value{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range nodecerts.Kubeconfigs(c.Config.Plan.Role) {
		if err := os.Remove(c.Paths.Kubeconfig(row.File)); err != nil {
			t.Fatal(err)
		}
	}
	files, warnings, err := nodecerts.Provided(folder, node, signers, now)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	before := map[string]string{}
	for _, f := range files {
		path := c.Paths.Kubeconfig(f.Path)
		if rest, ok := strings.CutPrefix(f.Path, "pki/"); ok {
			path = c.Paths.PKI(rest)
		}
		write(t, path, f.Data.Reveal())
		before[path] = f.Data.RevealString()
	}

	said := &recorder{}
	if err := certs.Run(t.Context(), c.Config, c.Paths, said.report(t)); err != nil {
		t.Fatal(err)
	}
	if err := kubeconfig.Run(t.Context(), c.Config, c.Paths, said.report(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said.String(), "issuing") {
		t.Errorf("something was issued:\n%s", said)
	}
	for path, want := range before {
		if file(t, path) != want {
			t.Errorf("%s was changed", path)
		}
	}

	c.writeManifests(t)
	if manifest := file(t, filepath.Join(c.Paths.Manifests(), "kube-controller-manager.yaml")); strings.Contains(manifest, "ca.key") {
		t.Error("the controller manager is to sign with a key that is not there")
	}
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
	c.StartKubelet()
	run(t, c, "wait-control-plane")
	run(t, c, "upload-config")
	if _, err := clientOf(t, c, kubeapi.AdminConf).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the administrator whom the CA has signed: %v", err)
	}
}
