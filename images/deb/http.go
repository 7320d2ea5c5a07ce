package deb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/kiln-os/kiln/internal/cache"
)

// NotFoundError says that the mirror does not have a file.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return "the mirror has no " + e.Path }

// statusError is an answer other than the file.
type statusError struct {
	path, status string
	code         int
}

func (e *statusError) Error() string { return e.path + ": the mirror answers " + e.status }

const (
	connectTimeout = 30 * time.Second
	tries          = 3
)

// silence is how long nothing may come from the mirror, be it the answer or more
// of a file. How long a whole file takes is not limited: links may be slow.
var silence = 60 * time.Second

// retryWait is the time before the second try; the third comes after twice that.
var retryWait = 2 * time.Second

var client = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
	TLSHandshakeTimeout:   connectTimeout,
	ResponseHeaderTimeout: silence,
	MaxIdleConnsPerHost:   parallel,
	IdleConnTimeout:       silence,
}}

// retry calls f until it succeeds, fails for good or was tried often enough.
func retry(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == tries || ctx.Err() != nil || final(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * retryWait):
		}
	}
}

// final tells errors that another try would meet again.
func final(err error) bool {
	var s *statusError
	if errors.As(err, &s) {
		return s.code < 500 && s.code != http.StatusTooManyRequests && s.code != http.StatusRequestTimeout
	}
	return errors.Is(err, errOffline) || errors.As(err, new(*NotFoundError)) || errors.As(err, new(*cache.MismatchError)) || errors.As(err, new(*fs.PathError))
}

// get opens a file of the mirror, once. The caller retries: a transfer may break
// at any point, not only at its start.
func get(ctx context.Context, mirror, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, mirror+"/"+path, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		stalled := fmt.Errorf("%s: nothing came from the mirror for %s", path, silence)
		return &body{resp.Body, ctx, cancel, time.AfterFunc(silence, func() { cancel(stalled) })}, nil
	}
	resp.Body.Close()
	cancel(nil)
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		return nil, &NotFoundError{path}
	}
	return nil, &statusError{path, resp.Status, resp.StatusCode}
}

// body is a transfer that ends when the mirror falls silent.
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
