package arch

import (
	"testing"

	"github.com/google/uuid"
)

// TestPartitionTypes holds what systemd-id128 show prints for the names that
// systemd-repart uses.
func TestPartitionTypes(t *testing.T) {
	want := map[string][3]string{
		"x86-64":   {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "8484680c-9521-48c6-9c11-b0720656f69e", "77ff5f63-e7b6-4633-acf4-1565b864c0e6"},
		"arm64":    {"b921b045-1df0-41c3-af44-4c6f280d3fae", "b0e01050-ee5f-4390-949a-9101b17104e9", "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e"},
		"arm":      {"69dad710-2ce4-4e3c-b16c-21a1d49abed3", "7d0359a3-02b3-4f0a-865c-654403e70625", "c215d751-7bcd-4649-be90-6627490a4c05"},
		"ppc64-le": {"c31c45e6-3f39-412e-80fb-4809c4980599", "15bb03af-77e7-4d4a-b12b-c0d084f7491c", "ee2b9983-21e8-4153-86d9-b6901a54d1ce"},
	}
	for _, a := range table {
		if got := [3]string{a.RootType, a.UsrType, a.UsrVerityType}; got != want[a.RepartSuffix] {
			t.Errorf("%s: %v, systemd has %v", a.RepartSuffix, got, want[a.RepartSuffix])
		}
	}
}

func TestTableIsComplete(t *testing.T) {
	seen := map[string]string{}
	for _, n := range Names() {
		a, err := Get(n)
		if err != nil {
			t.Fatal(err)
		}
		if a.Debian == "" || a.Kernel == "" || a.Loader == "" || a.Triplet == "" || a.RepartSuffix == "" || a.Console == "" || a.QEMU.Binary == "" || a.QEMU.Package == "" {
			t.Errorf("%s: a field is empty: %+v", n, a)
		}
		if a.Boot == BootEFI && (a.EFIName == "" || a.EFIBoot == "" || a.EFIStub == "" || a.QEMU.FirmwareCode == "") {
			t.Errorf("%s boots by EFI but has no EFI names: %+v", n, a)
		}
		for _, id := range []string{a.RootType, a.UsrType, a.UsrVerityType} {
			if _, err := uuid.Parse(id); err != nil {
				t.Errorf("%s: partition type %q: %v", n, id, err)
			}
			if other := seen[id]; other != "" {
				t.Errorf("%s and %s share partition type %s", n, other, id)
			}
			seen[id] = n
		}
	}
	if _, err := Get("mips"); err == nil {
		t.Error("mips is known")
	}
}
