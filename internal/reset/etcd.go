package reset

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// advertiseClientURLs is the annotation under which kubeadm's etcd pods say where
// they can be reached.
const advertiseClientURLs = "kubeadm.kubernetes.io/etcd.advertise-client-urls"

// etcdTimeout bounds each question to etcd.
const etcdTimeout = 20 * time.Second

// etcdPod is what the node's static pod says of its etcd member.
type etcdPod struct {
	client, peer string // URLs
}

// readEtcdPod returns nil if the node has no etcd member.
func (n Node) readEtcdPod() (*etcdPod, error) {
	path := filepath.Join(n.Paths.Manifests(), "etcd.yaml")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(data, &pod); err != nil || len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("%s is not the manifest of a pod", path)
	}
	out := &etcdPod{client: pod.Annotations[advertiseClientURLs]}
	for _, arg := range append(pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args...) {
		if v, ok := strings.CutPrefix(arg, "--initial-advertise-peer-urls="); ok {
			out.peer = v
		}
		if v, ok := strings.CutPrefix(arg, "--advertise-client-urls="); ok && out.client == "" {
			out.client = v
		}
	}
	if out.client == "" || out.peer == "" {
		return nil, fmt.Errorf("%s does not say what etcd advertises", path)
	}
	return out, nil
}

// removeEtcdMember takes the node's etcd out of its cluster, so that the others do
// not count it for their quorum. The only member is not removed: with it the cluster
// ends.
func removeEtcdMember(ctx context.Context, n Node) ([]Change, error) {
	pod, err := n.readEtcdPod()
	if err != nil {
		n.Report.Warn("etcd: %v; if other members are left, remove this one there with etcdctl member remove", err)
		return nil, nil
	}
	if pod == nil {
		return nil, nil
	}
	return []Change{{
		Text: "remove the etcd member " + pod.peer, Optional: true,
		Do: func(ctx context.Context) error {
			err := n.leaveEtcd(ctx, pod)
			if err != nil {
				return fmt.Errorf("%w; if other members are left, remove this one there with etcdctl member remove", err)
			}
			return nil
		},
	}}, nil
}

func (n Node) leaveEtcd(ctx context.Context, pod *etcdPod) error {
	conf, err := n.EtcdTLS()
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(pod.client, ","), TLS: conf, DialTimeout: etcdTimeout, Logger: zap.NewNop(), Context: ctx,
	})
	if err != nil {
		return fmt.Errorf("etcd at %s: %w", pod.client, err)
	}
	defer client.Close()
	ask, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	list, err := client.MemberList(ask)
	if err != nil {
		return fmt.Errorf("etcd at %s: %w", pod.client, err)
	}
	var self uint64
	var others []string
	for _, m := range list.Members {
		if slices.Contains(m.PeerURLs, pod.peer) {
			self = m.ID
			continue
		}
		others = append(others, m.ClientURLs...)
	}
	switch {
	case self == 0: // removed before
		return nil
	case len(list.Members) == 1:
		n.Report.Step("remove-etcd-member: it is the last one: the cluster ends with it")
		return nil
	case len(others) > 0:
		// Said to the others: the one that leaves may be gone before it can answer.
		client.SetEndpoints(others...)
	}
	return again(ctx, func() error {
		ask, cancel := context.WithTimeout(ctx, etcdTimeout)
		defer cancel()
		_, err := client.MemberRemove(ask, self)
		if err != nil && strings.Contains(err.Error(), "member not found") {
			return nil
		}
		return err
	})
}

// EtcdTLS identifies as kubeadm does, with the certificate of etcd's health checks.
func (n Node) EtcdTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(n.Paths.PKI("etcd/healthcheck-client.crt"), n.Paths.PKI("etcd/healthcheck-client.key"))
	if err != nil {
		return nil, fmt.Errorf("credentials for etcd: %w", err)
	}
	ca, err := os.ReadFile(n.Paths.PKI("etcd/ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", n.Paths.PKI("etcd/ca.crt"))
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
