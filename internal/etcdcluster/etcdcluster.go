// Package etcdcluster speaks to the etcd members of a cluster's control planes.
package etcdcluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crypto/x509"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/staticpod"
)

// callTimeout is per request: kubeadm's 2 s are too short for a memory card.
const callTimeout = 10 * time.Second

// Endpoints returns the client URLs of the cluster's members as their static pods
// advertise them.
func Endpoints(ctx context.Context, api *kubeapi.API) ([]string, error) {
	pods, err := api.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=" + staticpod.Etcd + ",tier=control-plane"})
	if err != nil {
		return nil, fmt.Errorf("list the etcd pods: %w", err)
	}
	var out []string
	for _, p := range pods.Items {
		url := p.Annotations[staticpod.EtcdClientURLsAnnotation]
		if url == "" {
			return nil, fmt.Errorf("the pod %s does not say where etcd answers (annotation %s)", p.Name, staticpod.EtcdClientURLsAnnotation)
		}
		out = append(out, strings.Split(url, ",")...)
	}
	if len(out) == 0 {
		return nil, errors.New("the cluster shows no etcd pods yet")
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Client is a connection to the members.
type Client struct{ c *clientv3.Client }

// Dial returns a Client of the members at endpoints, with the node's own client
// certificate for health checks. Nothing is sent.
func Dial(paths host.Paths, endpoints []string) (*Client, error) {
	pair, err := tls.LoadX509KeyPair(paths.PKI("etcd/healthcheck-client.crt"), paths.PKI("etcd/healthcheck-client.key"))
	if err != nil {
		return nil, fmt.Errorf("etcd's client certificate: %w", err)
	}
	ca, err := os.ReadFile(paths.PKI("etcd/ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("etcd's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", paths.PKI("etcd/ca.crt"))
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: callTimeout, DialKeepAliveTime: callTimeout, DialKeepAliveTimeout: callTimeout,
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		// What it has to say comes as errors too.
		Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return &Client{c}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.c.Close() }

// Member is one of the cluster's members, started or not.
type Member struct {
	ID uint64
	// Name is "" until the member has started.
	Name    string
	PeerURL string
	// ClientURLs are known once it has started.
	ClientURLs []string
	Learner    bool
}

// Started reports whether the member has ever started.
func (m Member) Started() bool { return m.Name != "" }

// Members lists the members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.c.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: list the members: %w", err)
	}
	return members(resp.Members), nil
}

func members(list []*etcdserverpb.Member) []Member {
	var out []Member
	for _, m := range list {
		member := Member{ID: m.ID, Name: m.Name, ClientURLs: m.ClientURLs, Learner: m.IsLearner}
		if len(m.PeerURLs) > 0 {
			member.PeerURL = m.PeerURLs[0]
		}
		out = append(out, member)
	}
	return out
}

// Find returns the member with the peer URL, which is what etcd tells members apart by.
func Find(list []Member, peerURL string) (Member, bool) {
	i := slices.IndexFunc(list, func(m Member) bool { return m.PeerURL == peerURL })
	if i < 0 {
		return Member{}, false
	}
	return list[i], true
}

// AddLearner adds a member that has no vote yet. A member that is there already is no error.
func (c *Client) AddLearner(ctx context.Context, peerURL string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.c.MemberAddAsLearner(ctx, []string{peerURL})
	switch {
	case errors.Is(err, rpctypes.ErrPeerURLExist):
		return nil
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return fmt.Errorf("etcd takes in one member at a time, and another is joining: %w", err)
	case err != nil:
		return fmt.Errorf("etcd: add %s: %w", peerURL, err)
	}
	return nil
}

// Promote gives a learner its vote. One that has it already is no error.
func (c *Client) Promote(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.c.MemberPromote(ctx, id)
	switch {
	case errors.Is(err, rpctypes.ErrMemberNotLearner):
		return nil
	case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return fmt.Errorf("it does not have all data yet: %w", err)
	case err != nil:
		return fmt.Errorf("etcd: promote member %x: %w", id, err)
	}
	return nil
}

// CheckQuorum returns nil if a majority of the voting members answers.
func (c *Client) CheckQuorum(ctx context.Context) error {
	list, err := c.Members(ctx)
	if err != nil {
		return err
	}
	voters, well := 0, 0
	var why []string
	for _, m := range list {
		if m.Learner {
			continue
		}
		voters++
		if err := c.checkMember(ctx, m); err != nil {
			why = append(why, fmt.Sprintf("%s: %v", m.name(), err))
			continue
		}
		well++
	}
	if well <= voters/2 {
		return fmt.Errorf("%d of %d etcd members are healthy, too few to take in another: %s", well, voters, strings.Join(why, "; "))
	}
	return nil
}

func (c *Client) checkMember(ctx context.Context, m Member) error {
	if len(m.ClientURLs) == 0 {
		return errors.New("it has not started")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status, err := c.c.Status(ctx, m.ClientURLs[0])
	if err != nil {
		return err
	}
	if status.Leader == 0 {
		return errors.New("it knows no leader")
	}
	return nil
}

// name is the member's name, or its id while it has none.
func (m Member) name() string {
	if m.Name != "" {
		return m.Name
	}
	return strconv.FormatUint(m.ID, 16)
}

// InitialCluster renders etcd's flag of this name for the member of nodeName at
// peerURL: all members, those without a name under their id, as kubeadm does.
func InitialCluster(list []Member, nodeName, peerURL string) string {
	var out []string
	for _, m := range list {
		name := m.name()
		if m.PeerURL == peerURL {
			name = nodeName
		}
		out = append(out, name+"="+m.PeerURL)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
