package discovery

import (
	"crypto/x509"
	"errors"
	"time"
)

// ClockError is a connection that failed because the node's clock is behind: a board
// without a battery starts in the past, where no certificate is valid, and its
// network may have no time server.
type ClockError struct {
	// Floor is when a certificate began to be valid that the cluster's CA, which was
	// checked, has issued. It is not later than now.
	Floor time.Time
	error
}

func (e *ClockError) Unwrap() error { return e.error }

// clockFloor reports whether err says that a certificate of the CA is not valid yet,
// and since when it is.
func clockFloor(err error, caPEM []byte) (floor time.Time, behind bool) {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		return floor, false
	}
	floor = invalid.Cert.NotBefore
	if !time.Now().Before(floor) {
		return floor, false // it has expired
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	// Somebody in between has no certificate of this CA to move the clock with.
	_, err = invalid.Cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: floor, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return floor, err == nil
}
