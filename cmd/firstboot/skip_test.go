package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kiln-os/kiln/internal/phase"
)

func TestUnskipped(t *testing.T) {
	all := (node{}).initPhases()
	var out bytes.Buffer
	left := unskipped(all, []string{"preflight", "bootstrap-token"}, phase.NewPrinter(&out))
	if len(left) != len(all)-2 || left[0].Name != "kubeconfig" || !strings.Contains(out.String(), "skips phase bootstrap-token") {
		t.Errorf("%d of %d phases; %s", len(left), len(all), out.String())
	}
	if left := unskipped(all, nil, phase.NewPrinter(&out)); len(left) != len(all) {
		t.Errorf("%d of %d phases without a skip", len(left), len(all))
	}
}
