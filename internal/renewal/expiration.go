package renewal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kiln-os/kiln/pki"
)

// Expiration is when the certificates of a node expire, as kubeadm certs
// check-expiration -o json prints it (output.kubeadm.k8s.io/v1alpha3).
type Expiration struct {
	metav1.TypeMeta `json:",inline"`
	Certificates    []Expiring `json:"certificates"`
	Authorities     []Expiring `json:"certificateAuthorities"`
}

// Expiring is a line of Expiration.
type Expiring struct {
	Name string `json:"name"`
	// ExpirationDate is null if the certificate is missing.
	ExpirationDate metav1.Time `json:"expirationDate"`
	// ResidualTime is in seconds, negative if it has expired.
	ResidualTime int64 `json:"residualTime"`
	// ExternallyManaged says that the key of its CA is not on this node.
	ExternallyManaged bool   `json:"externallyManaged"`
	CAName            string `json:"caName,omitempty"`
	Missing           bool   `json:"missing"`
}

// Expiration looks at all certificates. One that is not there is Missing; one that
// cannot be read is an error.
func (n Node) Expiration(now time.Time) (Expiration, error) {
	out := Expiration{TypeMeta: metav1.TypeMeta{Kind: "CertificateExpirationInfo", APIVersion: "output.kubeadm.k8s.io/v1alpha3"}}
	for _, c := range n.Certificates() {
		held, err := n.read(c)
		if errors.Is(err, fs.ErrNotExist) {
			out.Certificates = append(out.Certificates, Expiring{Name: c.Name, Missing: true})
			continue
		}
		if err != nil {
			return Expiration{}, err
		}
		e := expiring(c.Name, held.cert.NotAfter, now)
		e.CAName = kubeadmName(c.ca)
		if e.ExternallyManaged, err = n.external(c.ca); err != nil {
			return Expiration{}, err
		}
		out.Certificates = append(out.Certificates, e)
	}
	for _, ca := range n.authorities() {
		data, err := os.ReadFile(n.Paths.PKI(ca + ".crt"))
		if errors.Is(err, fs.ErrNotExist) {
			out.Authorities = append(out.Authorities, Expiring{Name: kubeadmName(ca), Missing: true})
			continue
		}
		if err != nil {
			return Expiration{}, err
		}
		cert, err := pki.ParseCertificate(data)
		if err != nil {
			return Expiration{}, fmt.Errorf("%s: %w", n.Paths.PKI(ca+".crt"), err)
		}
		e := expiring(kubeadmName(ca), cert.NotAfter, now)
		if e.ExternallyManaged, err = n.external(ca); err != nil {
			return Expiration{}, err
		}
		out.Authorities = append(out.Authorities, e)
	}
	return out, nil
}

func expiring(name string, at, now time.Time) Expiring {
	return Expiring{Name: name, ExpirationDate: metav1.Time{Time: at}, ResidualTime: int64(at.Sub(now) / time.Second)}
}

// WriteTable prints kubeadm's two tables.
func (e Expiration) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 10, 4, 3, ' ', 0)
	fmt.Fprintln(w, "CERTIFICATE\tEXPIRES\tRESIDUAL TIME\tCERTIFICATE AUTHORITY\tEXTERNALLY MANAGED")
	for _, c := range e.Certificates {
		if c.Missing {
			fmt.Fprintf(w, "!MISSING! %s\t\t\t\t\n", c.Name)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%-8v\n", c.Name, date(c), residual(c), c.CAName, yesNo(c.ExternallyManaged))
	}
	fmt.Fprintln(w, "\nCERTIFICATE AUTHORITY\tEXPIRES\tRESIDUAL TIME\tEXTERNALLY MANAGED")
	for _, c := range e.Authorities {
		if c.Missing {
			fmt.Fprintf(w, "!MISSING! %s\t\t\t\n", c.Name)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%-8v\n", c.Name, date(c), residual(c), yesNo(c.ExternallyManaged))
	}
	return w.Flush()
}

func date(e Expiring) string { return e.ExpirationDate.UTC().Format("Jan 02, 2006 15:04 MST") }

func residual(e Expiring) string {
	return duration.HumanDuration(time.Duration(e.ResidualTime) * time.Second)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
