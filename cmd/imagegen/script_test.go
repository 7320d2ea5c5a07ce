package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kiln-os/kiln/images/deb/debtest"
	"github.com/kiln-os/kiln/internal/build/buildtest"
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
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"base": cmdBase, "disk": cmdDisk, "events": cmdEvents, "release": cmdRelease},
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
