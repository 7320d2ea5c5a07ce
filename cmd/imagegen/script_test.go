package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/internal/build/buildtest"
	"github.com/kiln-os/kiln/internal/nodecerts/certstest"
	"github.com/kiln-os/kiln/internal/progress"
	"github.com/kiln-os/kiln/internal/release/releasetest"
)

// The scripts run the real program: the test binary is it when called imagegen.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imagegen": main})
}

func TestScripts(t *testing.T) {
	stranger := debtest.New(t)
	stranger.Publish("trixie", "amd64", nil, debtest.Package{Name: "hello", Version: "1"})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// A whole archive that is signed, but not by Debian.
			e.Setenv("STRANGERS_MIRROR", stranger.URL)
			examples, err := filepath.Abs("../../examples")
			e.Setenv("EXAMPLES", examples)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"base": cmdBase, "disk": cmdDisk, "events": cmdEvents, "release": cmdRelease, "damage": cmdDamage, "base-image": cmdBaseImage, "kubeconfig": cmdKubeconfig, "cas": cmdCAs, "sign": cmdSign},
	})
}

// cmdBase is the script command `base CACHE OUT`: a small base image, as if the last
// build into OUT had made it.
func cmdBase(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: base CACHE OUT")
	}
	ts.Check(buildtest.Prepare(ts.MkAbs(args[0]), ts.MkAbs(args[1]), 1))
}

// cmdDisk is the script command `disk FILE`: a file in the place of a disk of 8 GiB.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: disk FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), nil, 0o600))
	ts.Check(os.Truncate(ts.MkAbs(args[0]), 8<<30))
}

// cmdKubeconfig is the script command `kubeconfig CA FILE [TOKEN]`: a kubeconfig of
// https://lb.example.org:6443, with the certificates in the file CA.
func cmdKubeconfig(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: kubeconfig CA FILE [TOKEN]")
	}
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n" +
		"clusters: [{name: c, cluster: {server: 'https://lb.example.org:6443', certificate-authority-data: " +
		base64.StdEncoding.EncodeToString([]byte(ts.ReadFile(args[0]))) + "}}]\n"
	if len(args) == 3 {
		text += "users: [{name: u, user: {token: " + args[2] + "}}]\n"
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// cmdCAs is the script command `cas DIR`: external CAs with their keys.
func cmdCAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cas DIR")
	}
	ts.Check(certstest.WriteCAs(ts.MkAbs(args[0]), time.Now()))
}

// cmdSign is the script command `sign CAS NODE`: it signs the requests in a node's folder.
func cmdSign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sign CAS NODE")
	}
	ts.Check(certstest.Sign(ts.MkAbs(args[0]), ts.MkAbs(args[1]), time.Now()))
}

// cmdRelease is the script command `release FILE`: it serves a small release until the
// script ends, and writes its payload manifest, without digests.
func cmdRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: release FILE")
	}
	dir := ts.MkAbs("release")
	program, err := releasetest.Program(dir, "amd64")
	ts.Check(err)
	s, err := releasetest.NewServer(program)
	ts.Check(err)
	ts.Defer(s.Close)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(s.Manifest()), 0o644))
}

// cmdEvents is the script command `events FILE`: standard error of the last command
// is nothing but events, and FILE lists their kinds and steps.
func cmdEvents(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: events FILE")
	}
	var got strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile("stderr")), "\n") {
		var e progress.Event
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			ts.Fatalf("%q is no event: %v", line, err)
		}
		if e.Time.IsZero() {
			ts.Fatalf("%q has no time", line)
		}
		fmt.Fprintln(&got, strings.TrimSpace(e.Event+" "+e.Step))
	}
	if want := ts.ReadFile(args[0]); got.String() != want {
		ts.Fatalf("events:\n%swant:\n%s", got.String(), want)
	}
}

// cmdDamage is the script command `damage FILE PLACE`: it changes the byte at an
// offset, or at the first one of a text.
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FILE PLACE")
	}
	b := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	if err != nil {
		at = bytes.Index(b, []byte(args[1]))
	}
	if at < 0 || at >= len(b) {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// cmdBaseImage is the script command `base-image CACHE FILE`: it copies the base image
// in the cache.
func cmdBaseImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: base-image CACHE FILE")
	}
	found, err := filepath.Glob(ts.MkAbs(args[0]) + "/bases/*/disk.img")
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%d base images: %v", len(found), found)
	}
	b, err := os.ReadFile(found[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}
