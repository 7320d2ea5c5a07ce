// Package fetch reads files from HTTP servers the way that all of Kiln's downloads
// need it: a server that falls silent ends the transfer, what another try may mend
// is tried again, and a transfer that breaks goes on where it broke. Proxies and
// certificate authorities are those of Go's standard environment (HTTPS_PROXY,
// NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR).
//
// Nothing here is trusted: the caller checks digests.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// NotFoundError says that the server does not have a file.
type NotFoundError struct{ URL string }

func (e *NotFoundError) Error() string { return e.URL + ": the server has no such file (404)" }

// StatusError is an answer other than the file.
type StatusError struct {
	URL, Status string
	Code        int
}

func (e *StatusError) Error() string { return e.URL + ": the server answers " + e.Status }

// Final reports whether another try would meet the same answer.
func (e *StatusError) Final() bool {
	return e.Code < 500 && e.Code != http.StatusTooManyRequests && e.Code != http.StatusRequestTimeout
}

// RedirectError says that a server sends its clients astray.
type RedirectError struct{ Reason string }

func (e *RedirectError) Error() string { return e.Reason }

const (
	connectTimeout = 30 * time.Second
	// Tries is how often Retry and Resume try.
	Tries = 3
	// maxRedirects is how many servers may pass a request on.
	maxRedirects = 10
	// parallel is how many idle connections to one server are kept.
	parallel = 4
)

// silence is how long nothing may come from a server, be it the answer or more of
// a file. How long a whole file takes is not limited: links may be slow.
var silence = 60 * time.Second

// Transport is what all requests go through, those to container registries too.
var Transport = &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
	TLSHandshakeTimeout:   connectTimeout,
	ResponseHeaderTimeout: silence,
	MaxIdleConnsPerHost:   parallel,
	IdleConnTimeout:       silence,
	// A file's bytes are those on the server: what a range begins at, and a digest is of.
	DisableCompression: true,
}

var client = &http.Client{Transport: Transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return &RedirectError{"the server redirects from https to " + req.URL.Scheme}
	}
	if len(via) >= maxRedirects {
		return &RedirectError{fmt.Sprintf("the server redirects more than %d times", maxRedirects)}
	}
	return nil
}}

// Retry calls f until it succeeds, fails for good or was tried often enough. wait is
// the time before the second try; the third comes after twice that.
func Retry(ctx context.Context, wait time.Duration, final func(error) bool, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == Tries || ctx.Err() != nil || final(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * wait):
		}
	}
}

// Final tells errors of this package that another try would meet again.
func Final(err error) bool {
	var s *StatusError
	if errors.As(err, &s) {
		return s.Final()
	}
	return errors.As(err, new(*NotFoundError)) || errors.As(err, new(*RedirectError))
}

// File is a file that comes from a server.
type File struct {
	io.ReadCloser
	// Size is what the server says, in bytes; -1 if it does not say.
	Size int64
	// Type is the media type that the server says the file has.
	Type string

	etag string
	code int
}

// Open opens the file at url, once. The caller retries: a transfer may break at any
// point, not only at its start.
func Open(ctx context.Context, url string) (*File, error) { return open(ctx, url, nil) }

func open(ctx context.Context, url string, header http.Header) (*File, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && header != nil {
		return &File{
			ReadCloser: Guard(ctx, cancel, resp.Body, url),
			Size:       resp.ContentLength, Type: resp.Header.Get("Content-Type"), etag: resp.Header.Get("ETag"), code: resp.StatusCode,
		}, nil
	}
	resp.Body.Close()
	cancel(nil)
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		return nil, &NotFoundError{url}
	}
	return nil, &StatusError{url, resp.Status, resp.StatusCode}
}

// Guard ends a transfer when nothing comes of it for as long as silence says. Its request was made
// with ctx, which cancel ends; what names it in the error.
func Guard(ctx context.Context, cancel context.CancelCauseFunc, r io.ReadCloser, what string) io.ReadCloser {
	stalled := fmt.Errorf("%s: nothing came from the server for %s", what, silence)
	return &body{r, ctx, cancel, time.AfterFunc(silence, func() { cancel(stalled) })}
}

// body is a transfer that ends when the server falls silent.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(silence)
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
