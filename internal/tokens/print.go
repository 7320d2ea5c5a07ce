package tokens

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Output is a token as kubeadm token list -o json prints it
// (output.kubeadm.k8s.io/v1alpha3).
type Output struct {
	metav1.TypeMeta `json:",inline"`
	Token           string       `json:"token"` // a list of tokens is asked for to see them
	Description     string       `json:"description,omitempty"`
	Expires         *metav1.Time `json:"expires,omitempty"`
	Usages          []string     `json:"usages,omitempty"`
	Groups          []string     `json:"groups,omitempty"`
}

// Output reveals the token for printing.
func (t Token) Output() Output {
	out := Output{
		TypeMeta:    metav1.TypeMeta{Kind: "BootstrapToken", APIVersion: "output.kubeadm.k8s.io/v1alpha3"},
		Token:       t.Value().RevealString(),
		Description: t.Description, Usages: t.Usages, Groups: t.Groups,
	}
	if !t.Expires.IsZero() {
		out.Expires = &metav1.Time{Time: t.Expires}
	}
	return out
}

// WriteTable prints tokens in kubeadm's columns.
func WriteTable(out io.Writer, list []Token, now time.Time) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 10, 4, 3, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	for _, t := range list {
		ttl, expires := "<forever>", "<never>"
		if !t.Expires.IsZero() {
			ttl, expires = duration.ShortHumanDuration(t.Expires.Sub(now)), t.Expires.Format(time.RFC3339)
		}
		// kubeadm prints one table for each token and pads the columns to stay in line.
		fmt.Fprintf(w, "%s\t%-9s\t%s\t%-22s\t%-56s\t%s\n", t.Value().RevealString(), ttl, expires,
			orNone(strings.Join(t.Usages, ",")), orNone(t.Description), orNone(strings.Join(t.Groups, ",")))
	}
	return w.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// JoinCommand is the command line by which kubeadm joins a machine to the cluster
// with the token: server is the API server's URL, pins are those of its CAs. With a
// certificate key the machine becomes a control plane.
func JoinCommand(t Token, server string, pins []string, certificateKey string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("the kubeconfig's server %q is no URL", server)
	}
	endpoint := u.Host
	if u.Port() == "" {
		endpoint = net.JoinHostPort(u.Hostname(), "443")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "kubeadm join %s --token %s", endpoint, t.Value().RevealString())
	for _, p := range pins {
		fmt.Fprintf(&b, " --discovery-token-ca-cert-hash %s", p)
	}
	if certificateKey != "" {
		fmt.Fprintf(&b, " --control-plane --certificate-key %s", certificateKey)
	}
	return b.String(), nil
}
