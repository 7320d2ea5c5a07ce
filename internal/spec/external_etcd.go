package spec

import (
	"net/url"
	"path"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/kubeadmapi"
)

// externalEtcd checks how the API servers reach an etcd that somebody else runs, by
// kubeadm's rules. Its files come to the nodes with Butane snippets.
func (v *validator) externalEtcd(p diag.Path, e kubeadmapi.ExternalEtcd) {
	secure := e.CAFile != "" || e.CertFile != "" || e.KeyFile != ""
	if len(e.Endpoints) == 0 {
		v.bad(p, "want endpoints, such as [https://10.0.2.20:2379]", "an external etcd has no endpoints")
	}
	for i, s := range e.Endpoints {
		v.etcdURL(p.Child("endpoints", i), s, secure)
	}
	for i, s := range e.HTTPEndpoints {
		v.etcdURL(p.Child("httpEndpoints", i), s, false)
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		v.bad(p, "want both or none of certFile and keyFile", "a client certificate is no use without its key")
	} else if e.CertFile != "" && e.CAFile == "" {
		v.bad(p, "want caFile", "a client certificate is shown to nobody who was not verified")
	}
	for key, s := range map[string]string{"caFile": e.CAFile, "certFile": e.CertFile, "keyFile": e.KeyFile} {
		if s != "" && (!path.IsAbs(s) || path.Clean(s) != s) {
			v.bad(p.Child(key), "such as /etc/etcd-client/ca.crt", "%q is not an absolute path in its shortest form", s)
		}
	}
}

func (v *validator) etcdURL(p diag.Path, s string, secure bool) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		v.bad(p, "such as https://10.0.2.20:2379", "%q is not the URL of an etcd member", s)
	case secure && u.Scheme != "https":
		v.bad(p, "want https://", "with caFile and certFile %q must be reached with TLS", s)
	}
}
