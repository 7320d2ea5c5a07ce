// Package kubeapi is how firstboot speaks to an API server, its own node's or the
// cluster's: one client, and one patient way to bring an object to the state it should have.
package kubeapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodeconfig"
	"github.com/kiln-os/kiln/internal/phase"
)

// The kubeconfigs of administrators.
const (
	AdminConf = "admin.conf"
	// SuperAdminConf is in the group system:masters, which needs no RBAC object. Only
	// the node that creates the cluster has it.
	SuperAdminConf = "super-admin.conf"
)

const (
	// requestTimeout is per request. It is longer than kubeadm's 10 s: the first
	// writes of a slow machine's etcd take their time.
	requestTimeout = 30 * time.Second
	// Interval is the pause between two tries of anything that is waited for.
	Interval = 500 * time.Millisecond
)

// API is a client of an API server that waits rather than fails.
type API struct {
	Client kubernetes.Interface
	// Bound is how long one object is tried for.
	Bound  time.Duration
	report phase.Report
	// interval is the pause between tries.
	interval time.Duration
}

// New returns an API that tries each object for at most bound and says through r
// what it waits for.
func New(client kubernetes.Interface, bound time.Duration, r phase.Report) *API {
	return &API{Client: client, Bound: bound, report: r, interval: Interval}
}

// Load returns an API with the credentials of /etc/kubernetes/<name>, AdminConf
// or SuperAdminConf. Whatever server the file names, it speaks to this node's own
// API server: what stands behind the cluster's shared endpoint may not exist yet.
// Nothing is sent.
func Load(cfg nodeconfig.Config, paths host.Paths, name string, r phase.Report) (*API, error) {
	return load(cfg, paths.Kubeconfig(name), "https://"+cfg.LocalAPIEndpoint(), r)
}

// LoadShared is Load for any kubeconfig, by its path, and with the server that the
// file names: a joining node has no API server of its own, or not yet.
func LoadShared(cfg nodeconfig.Config, path string, r phase.Report) (*API, error) {
	return load(cfg, path, "", r)
}

// LoadReading is LoadShared for a dry run: what would change anything is not sent.
func LoadReading(cfg nodeconfig.Config, path string, r phase.Report) (*API, error) {
	rc, err := restConfig(path, "")
	if err != nil {
		return nil, err
	}
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper { return reader{next} })
	return fromConfig(cfg, path, rc, r)
}

// reader sends requests that change nothing.
type reader struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r reader) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return nil, fmt.Errorf("a dry run does not send %s %s", req.Method, req.URL.Path)
	}
	return r.next.RoundTrip(req)
}

func load(cfg nodeconfig.Config, path, server string, r phase.Report) (*API, error) {
	rc, err := restConfig(path, server)
	if err != nil {
		return nil, err
	}
	return fromConfig(cfg, path, rc, r)
}

func fromConfig(cfg nodeconfig.Config, path string, rc *rest.Config, r phase.Report) (*API, error) {
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return New(client, time.Duration(cfg.Plan.Timeouts.KubernetesCall), r), nil
}

// restConfig reads a kubeconfig and points it to server, "" for its own. Its errors
// quote nothing of the file: it holds a private key.
func restConfig(path, server string) (*rest.Config, error) {
	kc, err := clientcmd.LoadFromFile(path)
	if err != nil {
		if pathErr := new(fs.PathError); errors.As(err, &pathErr) {
			return nil, err
		}
		return nil, fmt.Errorf("%s is not a kubeconfig", path)
	}
	if server != "" {
		for _, c := range kc.Clusters {
			c.Server = server
		}
	}
	rc, err := clientcmd.NewDefaultClientConfig(*kc, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%s is not a usable kubeconfig", path)
	}
	rc.Timeout = requestTimeout
	// client-go's default of 5 requests a second would be slower than the API server.
	rc.QPS, rc.Burst = 50, 100
	// Never through a proxy: the server is this machine, or one of its cluster.
	rc.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	rc.UserAgent = "kiln-firstboot"
	return rc, nil
}
