// Package buildtest prepares what a build leaves, with a small base image: stamping
// then needs neither a network nor a compiler.
package buildtest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/kiln-os/kiln/internal/build"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
)

// Prepare puts a base image with usrMiB of /usr into the cache, and makes it the
// one of the output folder's last build.
func Prepare(cacheDir, out string, usrMiB int) error {
	c, err := cache.Open(cacheDir)
	if err != nil {
		return err
	}
	key := cache.Key("a small base image")
	if _, err := c.Dir(context.Background(), build.BasesKind, key, func(tmp string) error { return nodeimagetest.WriteBase(tmp, usrMiB) }); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	record, err := json.Marshal(map[string]string{nodeimagetest.Profile: key})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, build.BasesFile), record, 0o644)
}
