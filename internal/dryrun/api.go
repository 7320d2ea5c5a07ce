package dryrun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/phase"
)

// API returns an API server in which nothing exists but the Node, as the kubelet
// registers it, and which keeps no object. Each is written to the folder dir, but for
// Secrets.
func API(nodeName, dir string, r phase.Report) (*kubeapi.API, error) {
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host:          "https://" + nodeName,
		ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		Transport:     &listener{nodeName, dir, r, 0},
	})
	if err != nil {
		return nil, err
	}
	return kubeapi.New(client, time.Second, r), nil
}

// listener answers requests in the place of an API server.
type listener struct {
	node, dir string
	r         phase.Report
	count     int
}

// object is what is reported of one.
type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct{ Namespace, Name string } `json:"metadata"`
}

// RoundTrip implements http.RoundTripper.
func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet {
		if name, ok := strings.CutPrefix(req.URL.Path, "/api/v1/nodes/"); ok && name == l.node {
			return answer(req, http.StatusOK, corev1.Node{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
			})
		}
		return answer(req, http.StatusNotFound, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
			Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: "nothing exists in a dry run",
		})
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update"}[req.Method]
	if verb == "" {
		return nil, fmt.Errorf("a dry run has no answer to %s %s", req.Method, req.URL.Path)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, errors.New("dry run: the object is not JSON") // the error may quote a Secret
	}
	name := o.Metadata.Name
	if o.Metadata.Namespace != "" {
		name = o.Metadata.Namespace + "/" + name
	}
	l.r.Step("would %s the %s %s", verb, o.Kind, name)
	if err := l.keep(o, body); err != nil {
		return nil, err
	}
	return answer(req, http.StatusOK, json.RawMessage(body))
}

// keep writes an object down for who wants to look at it.
func (l *listener) keep(o object, body []byte) error {
	if o.Kind == "Secret" {
		return nil
	}
	text, err := yaml.JSONToYAML(body)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	l.count++
	name := strings.NewReplacer(":", "-", "/", "-").Replace(strings.ToLower(o.Kind + "-" + o.Metadata.Name))
	return atomicfile.WriteFile(filepath.Join(l.dir, fmt.Sprintf("%02d-%s.yaml", l.count, name)), text, 0o600)
}

func answer(req *http.Request, code int, v any) (*http.Response, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {runtime.ContentTypeJSON}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}
