package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kiln-os/kiln/internal/build/buildtest"
	"github.com/kiln-os/kiln/internal/progress"
)

// The scripts run the real program: the test binary is it when called imagegen.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imagegen": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"events": cmdEvents, "base": cmdBase},
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
