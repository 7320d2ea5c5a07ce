package units

import (
	"strings"
	"testing"

	"github.com/kiln-os/kiln/images/tree"
)

func vars() Vars {
	return Vars{
		ESPUUID: "11111111-1111-1111-1111-111111111111", StateUUID: "22222222-2222-2222-2222-222222222222",
		RepartArch: "x86-64", UsrSize: 1 << 30, VeritySize: 16 << 20, StateSize: 4 << 30, DiskMiB: 8192, Platform: "qemu",
	}
}

// overlays are all that a build lays over trees.
var overlays = map[string]func(*tree.Tree) error{
	"system": func(t *tree.Tree) error { return System(t, vars()) },
	"zram": func(t *tree.Tree) error {
		v := vars()
		v.Zram = "lz4"
		return System(t, v)
	},
	"initrd": func(t *tree.Tree) error { return Initrd(t, vars()) },
	"cloud": func(t *tree.Tree) error {
		v := vars()
		v.Platform, v.Cloud = "openstack", true
		return Initrd(t, v)
	},
	"live": Live,
}

func TestOverlays(t *testing.T) {
	for name, overlay := range overlays {
		tr := tree.New()
		if err := overlay(tr); err != nil {
			t.Fatal(err)
		}
		err := tr.Walk(func(p string, e *tree.Entry) error {
			switch e.Type {
			case tree.File:
				b, err := tr.ReadFile(p)
				if err != nil {
					return err
				}
				if left := placeholder.Find(b); left != nil {
					t.Errorf("%s: %s still holds %s", name, p, left)
				}
				if e.Mode != 0o644 {
					t.Errorf("%s: %s has mode %o", name, p, e.Mode)
				}
			case tree.Symlink:
				if strings.HasPrefix(e.Link, "/run/") || e.Link == "/dev/null" || strings.HasSuffix(p, "/default.target") {
					return nil // made at boot; Debian's
				}
				if _, _, err := tr.Lookup(p); err != nil {
					t.Errorf("%s: %s leads nowhere: %v", name, p, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestStampLinks: of the folder with a link to a config that is not there Ignition takes
// none, and of several configs at other places the first.
func TestStampLinks(t *testing.T) {
	const base, user = "usr/lib/ignition/base.d/kiln.ign", "usr/lib/ignition/user.ign"
	for platform, want := range map[string]string{"qemu": user, "metal": user, "vmware": base, "openstack": base} {
		v, tr := vars(), tree.New()
		v.Platform, v.Cloud = platform, platform == "openstack"
		if err := Initrd(tr, v); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{base, user} {
			if e := tr.Get(p); (e != nil && e.Link == stamp) != (p == want) {
				t.Errorf("%s: %s: %+v", platform, p, e)
			}
		}
	}
}

func TestNothingIsLeftUnreplaced(t *testing.T) {
	old := placeholder
	defer func() { placeholder = old }()
	// A word that no variable replaces is an error, not a file with the word in it.
	if !placeholder.MatchString("What=/dev/@SOME_NEW_WORD@") || placeholder.MatchString("modprobe@.service fsck@dev.service") {
		t.Error("the pattern of placeholders is wrong")
	}
}
