package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/nodeimage"
	"github.com/kiln-os/kiln/internal/nodeimage/nodeimagetest"
	"github.com/kiln-os/kiln/internal/reset"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/internal/tokens"
)

// plans reads the boot plans of the output folder's images.
func plans(t *testing.T, o Options) map[string]bootplan.Plan {
	t.Helper()
	out := map[string]bootplan.Plan{}
	for _, n := range o.Cluster.Nodes {
		files, err := reset.ParseStamp(stampOf(t, filepath.Join(o.Out, ImageName(n.Name)))["config.ign"])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Path == bootplan.Path {
				if out[n.Name], err = bootplan.Parse(f.Data.Reveal()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return out
}

func TestRenewTokens(t *testing.T) {
	o, bases, _ := manyNodes(t, 4)
	authority, err := secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stampNodes(t.Context(), o, authority, bases, o.Cluster.Nodes); err != nil {
		t.Fatal(err)
	}
	cp := o.Cluster.Nodes[0].Name
	// worker-003 has been booted.
	booted := filepath.Join(o.Out, ImageName("worker-003"))
	if err := os.Truncate(booted, 256<<20); err != nil {
		t.Fatal(err)
	}
	state := nodeimage.IDsOf(nodeimagetest.Profile).State.String()
	if out, err := testtools.Command(t, "sgdisk", "-e", "-n", "5:0:0", "-c", "5:kiln-state", "-u", "5:"+state, booted).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}

	first := plans(t, o)
	r, err := RenewTokens(t.Context(), o, TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Stamped) != 3 || len(r.Skipped) != 1 || r.Skipped[0].Node != "worker-003" || r.Applied || r.Manifest == "" {
		t.Errorf("%+v", r)
	}
	second := plans(t, o)
	for _, n := range []string{cp, "worker-001", "worker-002"} {
		if got := second[n].Tokens; len(got) != 1 || got[0].ID != r.Tokens[0].ID || got[0].ID == first[n].Tokens[0].ID || !got[0].Expires.Equal(*r.Tokens[0].Expires) {
			t.Errorf("%s: %+v", n, got)
		}
	}
	if second["worker-003"].Tokens[0].ID != first["worker-003"].Tokens[0].ID {
		t.Error("the booted image was stamped")
	}

	// Tokens of single nodes, told to the cluster.
	var told []tokens.Token
	r, err = RenewTokens(t.Context(), o, TokenOptions{Nodes: []string{"worker-001", "worker-003"}, Reset: true, Apply: func(_ context.Context, list []tokens.Token) error {
		told = list
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	third := plans(t, o)
	if len(told) != 2 || told[0].Description != "For node worker-001, made by imagegen token." || told[0].ID != third["worker-001"].Tokens[0].ID ||
		!told[0].Secret.Equal(third["worker-001"].Tokens[0].Secret) || told[1].ID != third["worker-003"].Tokens[0].ID || third["worker-002"].Tokens[0].ID != second["worker-002"].Tokens[0].ID {
		t.Errorf("told %+v; worker-001 %+v", told, third["worker-001"].Tokens)
	}
	if !r.Applied || r.Manifest != "" || len(r.Stamped) != 2 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(o.Out, SecretsDir, NewTokensFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the manifest of tokens that are not the last is left: %v", err)
	}
	// The node that creates the cluster makes all of them known.
	if _, err := Stamp(t.Context(), o, StampOptions{Node: cp, Image: filepath.Join(o.Out, ImageName(cp))}); err != nil {
		t.Fatal(err)
	}
	all := plans(t, o)[cp].Tokens
	if len(all) != 3 || all[1].Description != told[0].Description || all[2].ID != told[1].ID || all[0].Description != "" {
		t.Errorf("%+v", all)
	}

	// A cluster that refuses: nothing is changed.
	_, err = RenewTokens(t.Context(), o, TokenOptions{Apply: func(context.Context, []tokens.Token) error { return errors.New("no") }})
	if err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("%v", err)
	}
	if got := plans(t, o)["worker-002"].Tokens[0].ID; got != second["worker-002"].Tokens[0].ID {
		t.Error("an image was stamped")
	}
	again, err := secrets(o)
	if err != nil || again.Token.ID != second["worker-002"].Tokens[0].ID {
		t.Errorf("the token is another: %v", err)
	}
}
