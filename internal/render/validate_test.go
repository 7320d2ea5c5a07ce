package render

import (
	"testing"

	"github.com/kiln-os/kiln/internal/testtools"
)

// TestIgnitionValidate lets the validator of the very Ignition that nodes run read
// the rendered configs.
func TestIgnitionValidate(t *testing.T) {
	for _, name := range []string{"init", "join-control-plane", "join-worker", "documents"} {
		out, err := testtools.Command(t, "ignition-validate", "testdata/"+name+".ign.json").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
