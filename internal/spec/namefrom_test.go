package spec

import (
	"strings"
	"testing"
)

func TestNameFrom(t *testing.T) {
	known := Known{Profiles: []string{"aws-amd64", "qemu-amd64"}, Clouds: []string{"aws-amd64"}, Versions: []string{"v1.37.2"}}
	const worker = minimal + `- name: workers
  role: worker
  profile: aws-amd64
  nameFrom: platform
`
	c, list := Parse("cluster.yaml", []byte(worker), known)
	if len(list) > 0 || c.Nodes[1].NameFrom != FromPlatform {
		t.Fatalf("%v, %v", c.Nodes, list)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"value":         {"nameFrom: platform", "nameFrom: metadata", `"metadata" is not a known source of names`},
		"control plane": {"role: worker", "role: control-plane", "a control plane has the name that its certificates have; leave it out; only workers may have it"},
		"profile":       {"profile: aws-amd64", "profile: qemu-amd64", "machines of profile qemu-amd64 are given no names; leave it out, or take the profile of a cloud: aws-amd64"},
		"address":       {"nameFrom: platform", "nameFrom: platform\n  address: 10.0.2.16/24\n  gateway: 10.0.2.2", "several machines cannot have one address"},
		"MAC":           {"nameFrom: platform", "nameFrom: platform\n  interface: {mac: '52:54:00:12:34:56'}", "several machines cannot have one hardware address"},
	} {
		_, list := Parse("cluster.yaml", []byte(strings.Replace(worker, tc.old, tc.new, 1)), known)
		if !strings.Contains(list.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, list, tc.want)
		}
	}
}
