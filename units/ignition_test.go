//go:build root

package units

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/internal/userdata"
)

// TestIgnitionMerges lets the nodes' Ignition merge what the links of a cloud's
// initramfs lead to: the user data over the stamp, and the platform's name beside them.
func TestIgnitionMerges(t *testing.T) {
	name, err := userdata.NameConfig("in-the-cloud")
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]string{
		"/run/kiln/boot/kiln/config.ign": `{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/etc/a", "contents": {"source": "data:,stamp"}}, {"path": "/etc/b", "contents": {"source": "data:,stamp"}}]}}`,
		"/run/kiln/userdata/name.ign":    string(name),
		"/run/kiln/userdata/config.ign":  `{"ignition": {"version": "3.1.0"}, "storage": {"files": [{"path": "/etc/b", "contents": {"source": "data:,user"}}, {"path": "/etc/c", "contents": {"source": "data:,user"}}]}}`,
	}
	for title, tc := range map[string]struct {
		absent string
		want   map[string]string
	}{
		"user data":    {"", map[string]string{"a": "stamp", "b": "user", "c": "user", "kiln/platform-name": "in-the-cloud\n"}},
		"no user data": {"/run/kiln/userdata/config.ign", map[string]string{"a": "stamp", "b": "stamp", "c": "", "kiln/platform-name": "in-the-cloud\n"}},
	} {
		t.Run(title, func(t *testing.T) {
			dir := t.TempDir()
			write := func(path, text string, mode os.FileMode) {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			initrd := tree.New()
			if err := overlays["cloud"](initrd); err != nil {
				t.Fatal(err)
			}
			const folder = "usr/lib/ignition/"
			links := 0
			err := initrd.Walk(func(p string, e *tree.Entry) error {
				if e.Type == tree.Symlink && strings.HasPrefix(p, folder) {
					links++
					if text := given[e.Link]; text == "" {
						t.Errorf("nothing is at %s", e.Link)
					} else if e.Link != tc.absent {
						write(strings.TrimPrefix(p, folder), text, 0o600)
					}
				}
				return nil
			})
			if err != nil || links != 3 {
				t.Fatalf("%d links, %v", links, err)
			}
			write("bin/setfiles", "#!/bin/sh\n", 0o755)
			write("root/etc/selinux/config", "SELINUXTYPE=none\n", 0o644)
			for _, stage := range []string{"fetch", "files"} {
				cmd := testtools.Command(t, "usr/lib/dracut/modules.d/30ignition/ignition", "--log-to-stdout", "--platform=metal", "--stage="+stage,
					"--root="+filepath.Join(dir, "root"), "--config-cache="+filepath.Join(dir, "cache"), "--state-file="+filepath.Join(dir, "state"), "--neednet="+filepath.Join(dir, "neednet"))
				cmd.Env = append(cmd.Env, "IGNITION_SYSTEM_CONFIG_DIR="+dir, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("ignition: %v\n%s", err, out)
				}
			}
			for file, want := range tc.want {
				got, err := os.ReadFile(filepath.Join(dir, "root/etc", file))
				if err != nil && want != "" || string(got) != want {
					t.Errorf("/etc/%s has %q, %v; want %q", file, got, err, want)
				}
			}
		})
	}
}
