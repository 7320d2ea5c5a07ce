package main

import "testing"

func TestPerNode(t *testing.T) {
	p := perNode{unit: "MiB"}
	for _, bad := range []string{"", "0", "-1", "much", "=5", "kiln-1=", "kiln-1=0", "9999999"} {
		if err := p.Set(bad); err == nil || err.Error() != "want a positive number of MiB, or NODE=NUMBER" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if p.String() != "" || p.of("kiln-1", 7) != 7 {
		t.Errorf("nothing is set: %q", p.String())
	}
	for _, good := range []string{"kiln-2=8192", "2048", "kiln-1=4096"} {
		if err := p.Set(good); err != nil {
			t.Error(err)
		}
	}
	if p.String() != "2048 kiln-1=4096 kiln-2=8192" || p.of("kiln-2", 7) != 8192 || p.of("kiln-3", 7) != 2048 {
		t.Errorf("%q", p.String())
	}
}
