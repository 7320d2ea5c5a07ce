// Package importtest holds the rules of who may import whom, each with its reason.
package importtest

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/kiln-os/kiln/"

// ban says that no package below from may depend, directly or not, on a package below to.
type ban struct{ from, to, why string }

var bans = []ban{
	{"cmd/firstboot", "images", "a node assembles no images"},
	{"cmd/firstboot", "internal/spec", "the boot plan is all that a node reads"},
	{"cmd/firstboot", "internal/render", "the boot plan is all that a node reads"},
	{"cmd/firstboot", "internal/build", "a node builds nothing"},
	{"cmd/firstboot", "internal/release", "a node downloads nothing"},
	{"cmd/firstboot", "internal/fetch", "a node downloads nothing"},
	{"cmd/firstboot", "internal/qemu", "a node starts no virtual machines"},
	{"cmd/firstboot", "internal/vnet", "a node runs no network for others"},
	{"cmd/firstboot", "internal/clusternet", "a node runs no network for others"},
	{"cmd/kiln-userdata", "images", "the initramfs assembles no images"},
	{"cmd/kiln-userdata", "internal/bootplan", "the initramfs is small, and knows no cluster"},
	{"cmd/kiln-install", "internal/bootplan", "the initramfs is small, and knows no cluster"},
	{"cmd/kiln-install", "internal/spec", "the initramfs is small, and knows no cluster"},
	{"cmd/kiln-install", "pki", "the stamp is bytes, and is copied"},
	{"cmd/kiln-install", "internal/userdata", "it asks nobody over a network, and HTTP is a tenth of it"},
	{"internal/userdata", "pki", "user data comes from outside, and no key goes there"},
	{"internal/vnet", "internal/spec", "a network of machines knows no cluster"},
	{"cmd/firstboot", "internal/manpage", "a node renders no man pages; a build with the tag docs does, for the Makefile"},
	{"cmd/firstboot", "internal/progress", "a node's progress are plain lines, which a console and a journal can hold"},
	{"internal", "cmd", "programs call packages, not the other way round"},
	{"cmd/imagegen", "internal/phases", "phases run on the node"},
	{"cmd/imagegen", "internal/phase", "phases run on the node"},
	{"cmd/imagegen", "internal/nodeconfig", "what only the running node knows cannot be used in a build"},
	{"pki", "internal/host", "both programs use the pki; it knows neither's files"},
	{"internal/nodecerts", "internal/host", "both programs use it; it knows neither's files"},
	{"internal/discoveryfile", "internal/host", "both programs use it; it knows neither's files"},
	{"images", "internal/spec", "a base image is the same for every cluster"},
	{"images/grub", "internal", "what starts a machine is made of Debian's files alone"},
	{"images", "pki", "a base image holds no secret"},
	{"internal/nodeimage", "pki", "a base image holds no secret, and a stamp is bytes"},
	{"internal/nodeimage", "internal/spec", "a base image is the same for every cluster"},
	{"internal/bootplan", "internal/spec", "firstboot reads the plan without knowing the cluster file"},
}

// butane may be imported in one package only: it is about to move to Ignition's repository.
const butane = "github.com/coreos/butane"

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	imports := map[string][]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(l)
		imports[f[0]] = f[1:]
	}
	if len(imports) < 50 {
		t.Fatalf("go list shows only %d packages", len(imports))
	}
	for p := range imports {
		local, ok := strings.CutPrefix(p, module)
		if !ok {
			continue
		}
		for _, i := range imports[p] {
			if strings.HasPrefix(i, butane) && local != "internal/render" {
				t.Errorf("%s imports %s: only internal/render may", local, i)
			}
		}
		for _, b := range bans {
			if !within(local, b.from) {
				continue
			}
			if path := reach(imports, p, module+b.to, map[string]bool{}); path != nil {
				t.Errorf("%s depends on %s (%s): %s", local, b.to, strings.Join(path, " → "), b.why)
			}
		}
	}
}

// TestPhasesAreIndependent keeps phases from importing each other: their order is
// the list in cmd/firstboot, and nothing else.
func TestPhasesAreIndependent(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"internal/phases/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(l)
		for _, i := range f[1:] {
			if strings.HasPrefix(i, module+"internal/phases/") {
				t.Errorf("%s imports its sibling %s", f[0], i)
			}
		}
	}
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func reach(imports map[string][]string, from, to string, seen map[string]bool) []string {
	for _, i := range imports[from] {
		if within(i, to) {
			return []string{i}
		}
		if strings.HasPrefix(i, module) && !seen[i] {
			seen[i] = true
			if rest := reach(imports, i, to, seen); rest != nil {
				return append([]string{i}, rest...)
			}
		}
	}
	return nil
}
