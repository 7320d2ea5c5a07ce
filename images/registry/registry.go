// Package registry fetches container images by digest from registries that speak the
// OCI distribution protocol, and turns them into file trees.
//
// Everything that is fetched is named by its SHA-256 and kept in the cache under it,
// so that an image whose digest is known needs the network once. Credentials are
// those of ~/.docker/config.json (or $DOCKER_CONFIG), with its credential helpers.
package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/fetch"
)

// Client fetches images.
type Client struct {
	Cache *cache.Cache
	// Offline takes everything from the cache.
	Offline bool
	// Wait is the time before the second try of a transfer; 0 means two seconds.
	Wait time.Duration
}

// ErrOffline says that the cache does not have something and nothing may be fetched.
var ErrOffline = errors.New("it is not in the cache, and offline nothing is fetched")

// options of a request. The client tries again by itself.
func (c Client) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(fetch.Transport), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("kiln"), remote.WithRetryBackoff(remote.Backoff{Duration: c.wait(), Factor: 2, Steps: 1}),
	}
}

func (c Client) wait() time.Duration {
	if c.Wait == 0 {
		return 2 * time.Second
	}
	return c.Wait
}

// Resolve asks the registry for the digest that a tag stands for now.
func (c Client) Resolve(ctx context.Context, ref string) (digest string, err error) {
	r, err := name.ParseReference(ref, name.StrictValidation)
	if err != nil {
		return "", err
	}
	err = c.retry(ctx, func() error {
		// A GET, whose bytes are hashed: what a HEAD says is believed unseen.
		d, err := remote.Get(r, c.options(ctx)...)
		if err != nil {
			return explain(err)
		}
		digest = d.Digest.String()
		return nil
	})
	return digest, err
}

func (c Client) retry(ctx context.Context, f func() error) error {
	return fetch.Retry(ctx, c.wait(), final, f)
}

// manifest returns the bytes of a manifest or index, from the cache or the registry.
func (c Client) manifest(ctx context.Context, repo name.Repository, h v1.Hash) (string, error) {
	return c.blob(ctx, h, -1, func(ctx context.Context) (io.ReadCloser, error) {
		d, err := remote.Get(repo.Digest(h.String()), c.options(ctx)...)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(d.Manifest)), nil
	})
}

// layer returns the file with a blob's bytes, from the cache or the registry.
func (c Client) layer(ctx context.Context, repo name.Repository, d v1.Descriptor) (string, error) {
	return c.blob(ctx, d.Digest, d.Size, func(ctx context.Context) (io.ReadCloser, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		l, err := remote.Layer(repo.Digest(d.Digest.String()), c.options(ctx)...)
		if err == nil {
			var r io.ReadCloser
			if r, err = l.Compressed(); err == nil {
				return fetch.Guard(ctx, cancel, r, repo.Name()+"@"+d.Digest.String()), nil
			}
		}
		cancel(nil)
		return nil, err
	})
}

func (c Client) blob(ctx context.Context, h v1.Hash, size int64, open func(context.Context) (io.ReadCloser, error)) (file string, err error) {
	if h.Algorithm != "sha256" {
		return "", fmt.Errorf("digest %s: only SHA-256 is read", h)
	}
	err = c.retry(ctx, func() error {
		file, err = c.Cache.Fetch(ctx, h.Hex, size, func(ctx context.Context) (io.ReadCloser, error) {
			if c.Offline {
				return nil, ErrOffline
			}
			return open(ctx)
		})
		return explain(err)
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", h, err)
	}
	return file, err
}

// final tells errors that another try would meet again.
func final(err error) bool {
	var t *transport.Error
	if errors.As(err, &t) {
		s := fetch.StatusError{Code: t.StatusCode}
		return s.Final()
	}
	return fetch.Final(err) || errors.Is(err, ErrOffline) || errors.As(err, new(*cache.MismatchError)) || errors.As(err, new(*fs.PathError))
}

// explain says what a registry's refusal means.
func explain(err error) error {
	var t *transport.Error
	if !errors.As(err, &t) {
		return err
	}
	switch t.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the registry wants other credentials than those in ~/.docker/config.json (log in with docker, podman or crane): %w", err)
	case http.StatusNotFound:
		return fmt.Errorf("the registry has no such image: %w", err)
	}
	return err
}
