package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kiln-os/kiln/internal/kubeadmapi"
	"github.com/kiln-os/kiln/internal/phase"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/pki"
)

// sharedEndpoint: control planes that join need an address that stays when the first
// one is gone. kubeadm refuses them too.
func sharedEndpoint(_ context.Context, m *Machine) error {
	if m.Config.Plan.Cluster.ControlPlaneEndpoint == "" {
		return errors.New("the cluster has no controlPlaneEndpoint, an address that all control planes share; without one no further control plane can be added")
	}
	return nil
}

// sharedCertificates are what every control plane of a cluster has in common. Keys of
// CAs may be missing, with an external CA.
func sharedCertificates(_ context.Context, m *Machine) error {
	files := []string{"ca", "front-proxy-ca"}
	if m.Config.Plan.Cluster.Kubeadm.Etcd.External == nil {
		files = append(files, "etcd/ca")
	}
	var errs, warnings []error
	for _, f := range files {
		data, err := os.ReadFile(m.Paths.PKI(f + ".crt"))
		if err != nil {
			errs = append(errs, fmt.Errorf("CA %s: %w; it comes with the node's configuration", f, err))
			continue
		}
		cert, err := pki.ParseCertificate(data)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", m.Paths.PKI(f+".crt"), err))
		case !cert.IsCA:
			errs = append(errs, fmt.Errorf("%s is not the certificate of a CA", m.Paths.PKI(f+".crt")))
		}
		if _, err := os.Stat(m.Paths.PKI(f + ".key")); err != nil {
			warnings = append(warnings, fmt.Errorf("key of CA %s: %w; all certificates that it signs must be there", f, err))
		}
	}
	for _, f := range []string{"sa.key", "sa.pub"} {
		if _, err := os.Stat(m.Paths.PKI(f)); err != nil {
			errs = append(errs, fmt.Errorf("service-account key: %w; it comes with the node's configuration", err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(append(errs, warnings...)...)
	}
	if len(warnings) > 0 {
		return asWarning{errors.Join(warnings...)}
	}
	return nil
}

// bakedImages wants every image that the kubelet of a control plane will start: none
// is pulled. They are of the version that the node's image was built with, which the
// boot plan may contradict.
func bakedImages(_ context.Context, m *Machine) error {
	data, err := os.ReadFile(filepath.Join(m.Paths.Images(), ocispec.ImageIndexFile))
	if err != nil {
		return fmt.Errorf("baked container images: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("baked container images: %w", err)
	}
	have := map[string]bool{}
	for _, d := range index.Manifests {
		have[d.Annotations["io.containerd.image.name"]] = true
	}
	var errs []error
	for _, want := range staticpod.Images(m.Config.Plan.Cluster) {
		if have[want] {
			continue
		}
		name, _, _ := strings.Cut(want, ":")
		hint := "the node's image lacks it"
		for i := range have {
			if n, tag, _ := strings.Cut(i, ":"); n == name {
				hint = "the node's image has " + tag + "; build it anew for the cluster's kubernetesVersion"
			}
		}
		errs = append(errs, fmt.Errorf("image %s: %s, and nothing is pulled", want, hint))
	}
	return errors.Join(errs...)
}

// minExternalEtcd is the oldest etcd that kubeadm 1.37 takes.
var minExternalEtcd = version.MustParseSemantic("3.5.24-0")

// externalEtcdVersion asks each member for up to a minute: a new one may answer a little later.
func externalEtcdVersion(ctx context.Context, m *Machine) error {
	external := m.Config.Plan.Cluster.Kubeadm.Etcd.External
	endpoints := external.HTTPEndpoints
	if len(endpoints) == 0 {
		endpoints = external.Endpoints
	}
	get, err := m.etcdClient(external)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range endpoints {
		url := strings.TrimRight(e, "/") + "/version"
		var body []byte
		err := phase.Poll(ctx, m.report, "the external etcd at "+e, m.EtcdRetry, 12*m.EtcdRetry, func(ctx context.Context) (err error) {
			body, err = get(ctx, url)
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("external etcd %s: %w", e, err))
			continue
		}
		var answer struct {
			Etcdserver string `json:"etcdserver"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			errs = append(errs, fmt.Errorf("external etcd %s: /version: %w", e, err))
			continue
		}
		switch v, err := version.ParseSemantic(answer.Etcdserver); {
		case err != nil:
			errs = append(errs, fmt.Errorf("external etcd %s: %q is not a version", e, answer.Etcdserver))
		case v.LessThan(minExternalEtcd):
			errs = append(errs, fmt.Errorf("external etcd %s is %s, Kubernetes needs %s or later", e, v, minExternalEtcd))
		}
	}
	return errors.Join(errs...)
}

// etcdClient returns a function that gets a URL of an external etcd with the
// certificates that the configuration names.
func (m *Machine) etcdClient(external *kubeadmapi.ExternalEtcd) (func(context.Context, string) ([]byte, error), error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if external.CAFile != "" {
		data, err := os.ReadFile(m.Paths.At(external.CAFile))
		if err != nil {
			return nil, fmt.Errorf("CA of the external etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("CA of the external etcd: %s holds no certificate", external.CAFile)
		}
	}
	if external.CertFile != "" && external.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(m.Paths.At(external.CertFile), m.Paths.At(external.KeyFile))
		if err != nil {
			return nil, fmt.Errorf("client certificate for the external etcd, %s: %w", external.CertFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	return func(ctx context.Context, url string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: it answers %s", url, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	}, nil
}

// externalEtcdFiles wants the certificates with which the API server speaks to an
// external etcd.
func externalEtcdFiles(_ context.Context, m *Machine) error {
	external := m.Config.Plan.Cluster.Kubeadm.Etcd.External
	var errs []error
	for _, f := range []string{external.CAFile, external.CertFile, external.KeyFile} {
		if f == "" {
			continue
		}
		if _, err := os.Stat(m.Paths.At(f)); err != nil {
			errs = append(errs, fmt.Errorf("external etcd: %w", err))
		}
	}
	return errors.Join(errs...)
}
