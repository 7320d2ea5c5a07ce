package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/discoveryfile"
	"github.com/kiln-os/kiln/internal/secret"
)

// ErrKubeconfig is a kubeconfig that no waiting makes usable.
var ErrKubeconfig = errors.New("the boot plan's discovery kubeconfig")

// ByKubeconfig finds the cluster of a kubeconfig, whose server and CA it trusts. A
// CA that the kubeconfig does not have is taken from cluster-info, over a
// connection that the system's CAs verify. Without credentials of its own, token is
// used for joining.
//
// Errors other than ErrKubeconfig heal: the same call succeeds once their cause is gone.
func ByKubeconfig(ctx context.Context, kubeconfig secret.Value, token *bootplan.Token, clusterName string) (*Cluster, error) {
	file, err := discoveryfile.Parse(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKubeconfig, err)
	}
	kc, cluster, own := file.Config, file.Cluster, file.Credentials
	if !own && token == nil {
		return nil, fmt.Errorf("%w: it holds no credentials, and the boot plan no bootstrap token", ErrKubeconfig)
	}
	asking := kc
	if !own { // anybody may ask for cluster-info
		asking = clientcmdapi.NewConfig()
		asking.Clusters[""], asking.Contexts["c"], asking.CurrentContext = cluster, &clientcmdapi.Context{}, "c"
	}
	rc, err := clientcmd.NewDefaultClientConfig(*asking, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be used", ErrKubeconfig)
	}
	out := &Cluster{Server: cluster.Server}
	info, err := read(ctx, rc, cluster.Server)
	switch {
	case errors.As(err, new(forbidden)) && len(cluster.CertificateAuthorityData) > 0:
		// Its administrator does not publish it; the kubeconfig says all that is needed.
	case err != nil:
		return nil, err
	default:
		published, err := parseClusterInfo([]byte(info.Data[bootstrapapi.KubeConfigKey]))
		if err != nil {
			return nil, err
		}
		if published.Server != cluster.Server {
			out.Warning = fmt.Sprintf("the cluster calls its API server %s, the boot plan's kubeconfig %s; the latter is used", published.Server, cluster.Server)
		}
		if len(cluster.CertificateAuthorityData) == 0 {
			cluster.CertificateAuthorityData = published.CertificateAuthorityData
		}
	}
	if _, err := discoveryfile.Certificates(cluster.CertificateAuthorityData); err != nil {
		return nil, fmt.Errorf("%w: its CA: %w", ErrKubeconfig, err)
	}
	out.CA = cluster.CertificateAuthorityData
	if own {
		out.Kubeconfig, err = render(kc)
	} else {
		out.Kubeconfig, err = withToken(cluster, clusterName, *token)
	}
	return out, err
}

func serverURL(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}
