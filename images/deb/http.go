package deb

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/fetch"
)

// NotFoundError says that the mirror does not have a file.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return "the mirror has no " + e.Path }

// retryWait is the time before the second try; see fetch.Retry.
var retryWait = 2 * time.Second

// retry calls f until it succeeds, fails for good or was tried often enough.
func retry(ctx context.Context, f func() error) error { return fetch.Retry(ctx, retryWait, final, f) }

// final tells errors that another try would meet again.
func final(err error) bool {
	return fetch.Final(err) || errors.Is(err, errOffline) || errors.As(err, new(*NotFoundError)) ||
		errors.As(err, new(*cache.MismatchError)) || errors.As(err, new(*fs.PathError))
}

// get opens a file of the mirror, once. The caller retries.
func get(ctx context.Context, mirror, path string) (io.ReadCloser, error) {
	f, err := fetch.Open(ctx, mirror+"/"+path)
	if errors.As(err, new(*fetch.NotFoundError)) {
		return nil, &NotFoundError{path}
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}
