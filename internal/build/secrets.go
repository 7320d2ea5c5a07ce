package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/render"
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// NodesDir holds, in SecretsDir, a folder for each node whose certificates and
// kubeconfigs somebody else issues. It looks like /etc/kubernetes of the node.
const NodesDir = "nodes"

// secrets reads the cluster's secrets, makes what is missing, and reads what is
// provided for its nodes.
//
// Of a cluster that is not in the file there are none: what its workers need is there.
func secrets(o Options) (*pki.Authority, error) {
	if o.Cluster.Existing() {
		return &pki.Authority{}, nil
	}
	endpoint, err := o.Cluster.Endpoint()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Out, SecretsDir)
	a, err := pki.LoadOrCreate(dir, pki.Options{
		Algorithm: o.Cluster.EncryptionAlgorithm, ClusterName: o.Cluster.Name, Endpoint: endpoint,
		TokenTTL: o.Cluster.TokenTTL(), Now: o.Now,
		CAValidity: validity(o.Cluster.Kubeadm.CACertificateValidityPeriod), LeafValidity: validity(o.Cluster.Kubeadm.CertificateValidityPeriod),
	})
	if err != nil {
		return nil, err
	}
	return a, provide(o, dir, a)
}

// provide reads what is provided for the control planes. It reports everything that is
// wrong with it.
func provide(o Options, dir string, a *pki.Authority) error {
	a.Provided = map[string][]pki.ProvidedFile{}
	var errs []error
	for _, n := range o.Cluster.Nodes {
		folder := filepath.Join(dir, NodesDir, n.Name)
		if n.Role != spec.RoleControlPlane {
			if _, err := os.Stat(folder); err == nil {
				errs = append(errs, fmt.Errorf("%s: node %s is a worker, which gets no certificates of its own: it asks the cluster for one; remove the folder", folder, n.Name))
			} else if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		node, err := certNode(o.Cluster, n)
		if err != nil {
			return err
		}
		files, warnings, err := nodecerts.Provided(folder, node, a.CAs(), o.Now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, w := range warnings {
			o.log("warning: " + w)
		}
		a.Provided[n.Name] = files
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return providedAdmin(o, dir, a)
}

// providedAdmin takes admin.conf of the node that creates the cluster for the
// administrator's, where the CA that would sign another one is kept elsewhere.
func providedAdmin(o Options, dir string, a *pki.Authority) error {
	if !a.AdminConf.IsZero() {
		return nil
	}
	for _, f := range a.Provided[o.Cluster.ControlPlanes()[0].Name] {
		if f.Path == AdminConf {
			a.AdminConf = f.Data
		}
	}
	name := filepath.Join(dir, AdminConf)
	if have, err := os.ReadFile(name); err == nil && a.AdminConf.Equal(secret.New(have)) {
		return nil
	}
	return atomicfile.WriteFile(name, a.AdminConf.Reveal(), 0o600)
}

// certNode is a control plane as far as its certificates go.
func certNode(c *spec.Cluster, n spec.Node) (nodecerts.Node, error) {
	plan, err := render.PublicPlan(c, n)
	if err != nil {
		return nodecerts.Node{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nodecerts.Node{Plan: plan, Name: n.Name, Address: c.AdvertiseAddress(n)}, nil
}

// requireKeys fails unless the output folder has the cluster's keys. Where they are
// missing, new ones would be another cluster's.
func requireKeys(o Options) error {
	if o.Cluster.Existing() {
		return errors.New("the cluster file has workers alone, for a cluster that there is: its keys and tokens are with that cluster")
	}
	if _, err := os.Stat(filepath.Join(o.Out, SecretsDir, AdminConf)); err != nil {
		return fmt.Errorf("the cluster's keys: %w; the output folder is that of imagegen build", err)
	}
	return nil
}

// log tells the user, if there is a Progress.
func (o Options) log(line string) {
	if o.Progress != nil {
		o.Progress.Log(line)
	}
}
