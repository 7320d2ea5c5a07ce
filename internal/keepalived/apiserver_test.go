//go:build root

package keepalived

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/apitest"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/internal/testtools"
)

// TestAPIServerReady asks a real API server, as keepalived does on a node.
func TestAPIServerReady(t *testing.T) {
	c := apitest.New(t, nil)
	bin := t.TempDir()
	openssl := "#!/bin/sh\nexec '" + strings.Join(testtools.Command(t, "openssl").Args, "' '") + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "openssl"), []byte(openssl), 0o755); err != nil {
		t.Fatal(err)
	}
	ready := func() error {
		cmd := exec.Command("/bin/sh", "../../units/system/usr/lib/kiln/api-server-ready", c.Config.LocalAPIEndpoint())
		cmd.Env = []string{"PATH=" + bin}
		return cmd.Run()
	}
	if ready() == nil {
		t.Error("nothing answers, and that is ready")
	}
	t.Run("started", func(t *testing.T) {
		c.Start(t, staticpod.Etcd)
		t.Run("API server", func(t *testing.T) {
			c.Start(t, staticpod.APIServer)
			deadline := time.Now().Add(2 * time.Minute)
			for err := ready(); err != nil; err = ready() {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
		})
		if ready() == nil {
			t.Error("the API server is dead, and that is ready")
		}
	})
}
