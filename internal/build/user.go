package build

import (
	"github.com/kiln-os/kiln/internal/secret"
	"github.com/kiln-os/kiln/pki"
)

// UserKubeconfig makes the kubeconfig of a user of the cluster whose keys are in the
// output folder. It makes no keys of a cluster.
func UserKubeconfig(o Options, u pki.User) (secret.Value, error) {
	if err := requireKeys(o); err != nil {
		return secret.Value{}, err
	}
	authority, err := secrets(o)
	if err != nil {
		return secret.Value{}, err
	}
	endpoint, err := o.Cluster.Endpoint()
	if err != nil {
		return secret.Value{}, err
	}
	return authority.CA.IssueUser(u, o.Cluster.Name, "https://"+endpoint, o.Cluster.EncryptionAlgorithm, o.Now)
}
