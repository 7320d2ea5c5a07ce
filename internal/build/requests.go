package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kiln-os/kiln/internal/nodecerts"
	"github.com/kiln-os/kiln/internal/spec"
	"github.com/kiln-os/kiln/pki"
)

// RequestedNode is what Requests made for one control plane.
type RequestedNode struct {
	Node     string   `json:"node"`
	Requests []string `json:"requests"`
}

// Requests writes, for control planes, keys and certificate requests into their folders
// of the secrets: for what CAs sign whose keys are not among the cluster's secrets, or
// for everything if there are no secrets yet. Keys that are there are used again. It
// makes no CA. Without names it is for all control planes.
func Requests(o Options, names []string) ([]RequestedNode, error) {
	if o.Cluster.Existing() {
		return nil, errors.New("the cluster file has no control plane, and workers get no certificates of their own: they ask the cluster for them")
	}
	nodes := o.Cluster.ControlPlanes()
	if len(names) > 0 {
		nodes = nil
	}
	for _, name := range names {
		n, err := findNode(o.Cluster, name)
		if err != nil {
			return nil, err
		}
		if n.Role != spec.RoleControlPlane {
			return nil, fmt.Errorf("node %s is a worker, which gets no certificates of its own: it asks the cluster for one", name)
		}
		nodes = append(nodes, n)
	}
	var wrong []error
	for _, n := range nodes {
		if !o.Cluster.AdvertiseAddress(n).IsValid() {
			wrong = append(wrong, fmt.Errorf("node %s asks for its address when it starts, and certificates that are made before name it: give the node an address in the cluster file", n.Name))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	unlock, err := lockOutput(o.Out)
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir := filepath.Join(o.Out, SecretsDir)
	skip, ca, err := signedHere(dir)
	if err != nil {
		return nil, err
	}
	var out []RequestedNode
	for _, n := range nodes {
		node, err := certNode(o.Cluster, n)
		if err != nil {
			return out, err
		}
		folder := filepath.Join(dir, NodesDir, n.Name)
		made, err := nodecerts.Requests{
			PKI: filepath.Join(folder, "pki"), Kubeconfigs: folder, Algorithm: o.Cluster.EncryptionAlgorithm,
			Keep: true, CA: ca, Skip: func(ca string) bool { return skip[ca] },
		}.Write(node)
		if err != nil {
			return out, fmt.Errorf("node %s: %w", n.Name, err)
		}
		out = append(out, RequestedNode{n.Name, made})
	}
	return out, nil
}

// signedHere returns the CAs for which no requests are needed, as imagegen has or will
// make their keys, and the certificate of the cluster's CA, if it is there.
func signedHere(dir string) (skip map[string]bool, ca []byte, err error) {
	skip = map[string]bool{}
	var own, external, absent []string
	for _, row := range pki.Certificates() {
		if !row.IsCA() {
			continue
		}
		file := filepath.Join(dir, filepath.FromSlash(row.File))
		crt, err := os.ReadFile(file + ".crt")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
		_, keyErr := os.Stat(file + ".key")
		switch {
		case keyErr == nil:
			own = append(own, row.File)
		case !errors.Is(keyErr, os.ErrNotExist):
			return nil, nil, keyErr
		case crt != nil:
			external = append(external, row.File)
		default:
			absent = append(absent, row.File)
		}
		if row.File == "ca" {
			ca = crt
		}
	}
	switch {
	case len(external) > 0:
		// What is not there is made by the build.
		own = append(own, absent...)
	case len(absent) == 0:
		return nil, nil, fmt.Errorf("the keys of all CAs (%s) are in %s: imagegen signs with them, and nothing is to be requested. For external CAs put their certificates there, without keys, before the first build",
			strings.Join(own, ", "), dir)
	}
	for _, f := range own {
		skip[f] = true
	}
	return skip, ca, nil
}
