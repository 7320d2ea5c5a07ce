package render

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_3/types"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/spec"
)

const snippetHead = `apiVersion: kiln-os.dev/v1alpha1
kind: Cluster
name: demo
nodes:
- {name: kiln-1, role: control-plane, profile: qemu-amd64, address: 10.0.2.15/24, gateway: 10.0.2.2}
`

// parseIn parses a cluster file in a folder with further files.
func parseIn(t *testing.T, text string, files map[string]string) (*spec.Cluster, diag.List, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, list := spec.Parse(filepath.Join(dir, "f"), []byte(text), known)
	return c, list, dir
}

// TestSnippetMistakes: what is after "body" of the snippet begins in line 9, indented
// by four columns.
func TestSnippetMistakes(t *testing.T) {
	const inline = snippetHead + "butane:\n  - variant: fcos\n    version: 1.4.0\n"
	body := func(lines ...string) string { return inline + "    " + strings.Join(lines, "\n    ") + "\n" }
	file := func(lines ...string) string {
		return body(append([]string{"storage: {files: ["}, append(lines, "]}")...)...)
	}
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"nothing in it":   {snippetHead + "butane: [{}]\n", []string{"f:6:10: butane[0].variant: is missing; want fcos", "butane[0].version: is missing; want 1.4.0"}},
		"other version":   {snippetHead + "butane: [{variant: fcos, version: 1.5.0}]\n", []string{`f:6:35: butane[0].version: "1.5.0" is not the version of snippets; want 1.4.0, the newest that the Ignition`}},
		"other variant":   {snippetHead + "butane: [{variant: flatcar, version: 1.4.0}]\n", []string{`f:6:20: butane[0].variant: "flatcar" is not`}},
		"no such file":    {snippetHead + "butane: [x.bu]\n", []string{"f:6:10: butane[0]: cannot be read: no such file or directory; want the path"}},
		"number":          {snippetHead + "butane: [7]\n", []string{"f:6:10: butane[0]: is a number, not a Butane config"}},
		"unknown key":     {body("storge: {}"), []string{`f:9:5: butane[0].storge: unknown key "storge"`}},
		"wrong type":      {body("storage:", "  files: x"), []string{"f:10:14: butane[0].storage.files: is text, not a list"}},
		"wrong type deep": {file("{path: /etc/a, mode: many}"), []string{"f:10:26: butane[0].storage.files[0].mode: is text, not a whole number"}},
		"relative path":   {file("{path: etc/a}"), []string{"f:10:12: butane[0].storage.files[0].path: path not absolute"}},
		"path twice":      {file("{path: /etc/a},", "{path: /etc/a}"), []string{"f:11:"}},
		"two contents":    {file("{path: /etc/a, contents: {inline: x, local: f}}"), []string{"only one of the following can be set"}},

		"ignition":           {body("ignition: {config: {merge: [{inline: x}]}}"), []string{"f:9:5: butane[0].ignition: Kiln writes this part"}},
		"kernel":             {body("kernel_arguments: {should_exist: [quiet]}"), []string{"f:9:5: butane[0].kernel_arguments: the kernel's command line is part of the image"}},
		"boot device":        {body("boot_device: {mirror: {devices: [/dev/a, /dev/b]}}"), []string{"f:9:5: butane[0].boot_device: the disk's layout"}},
		"RAID":               {body("storage: {raid: [{name: x, level: raid1, devices: [/dev/a]}]}"), []string{"f:9:15: butane[0].storage.raid: the initramfs has no mdadm"}},
		"LUKS":               {body("storage: {luks: [{name: x, device: /dev/a}]}"), []string{"butane[0].storage.luks: the initramfs has no cryptsetup"}},
		"XFS":                {body("storage: {filesystems: [{device: /dev/vdb, format: xfs}]}"), []string{"f:9:56: butane[0].storage.filesystems[0].format: the initramfs cannot make a file system of the type xfs"}},
		"swap":               {body("storage: {filesystems: [{device: /dev/vdb, format: swap}]}"), []string{"the kubelet does not start on a node with swap"}},
		"own disk":           {body("storage: {disks: [{device: /dev/disk/by-partlabel/kiln-esp, wipe_table: true}]}"), []string{"storage.disks[0].device: /dev/disk/by-partlabel/kiln-esp is on the disk"}},
		"remote":             {file("{path: /etc/a, contents: {source: 'https://example.org/a'}}"), []string{"f:10:39: butane[0].storage.files[0].contents.source: a node's first boot begins without a network"}},
		"data URL":           {file("{path: /etc/a, contents: {source: 'data:,x'}}"), nil},
		"outside":            {file("{path: /etc/a, contents: {local: ../x}}"), []string{"contents.local: ../x:"}},
		"linked away":        {file("{path: /etc/a, contents: {local: away}}"), []string{"contents.local: away:"}},
		"tree outside":       {body("storage: {trees: [{local: ..}]}"), []string{"storage.trees[0].local: ..:"}},
		"absent":             {file("{path: /etc/a, contents: {local: absent}}"), []string{"absent does not exist"}},
		"plan":               {file("{path: /etc/kiln/boot.yaml}"), []string{"f:10:12: butane[0].storage.files[0].path: /etc/kiln/boot.yaml belongs to Kiln; set it in the cluster file"}},
		"not so clean":       {file("{path: /etc/ssh/../hostname}"), []string{"/etc/hostname belongs to Kiln"}},
		"CA":                 {file("{path: /etc/kubernetes/pki/ca.crt}"), []string{"belongs to Kiln; the CAs are made by imagegen"}},
		"moved CA":           {"---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncertificatesDir: /etc/certs\n---\n" + file("{path: /etc/certs/ca.crt}"), []string{"/etc/certs/ca.crt belongs to Kiln"}},
		"network":            {file("{path: /etc/systemd/network/10-kiln.network}"), []string{"or add /etc/systemd/network/10-kiln.network.d/50-mine.conf"}},
		"usr":                {file("{path: /usr/local/bin/x}"), []string{"/usr is read-only: dm-verity guards it; want a path below /etc"}},
		"run":                {file("{path: /run/x}"), []string{"/run is empty at every boot"}},
		"link over etc":      {body("storage: {links: [{path: /etc/kubernetes, target: /data}]}"), []string{"/etc/kubernetes is a folder with what belongs to Kiln"}},
		"emptied":            {body("storage: {directories: [{path: /var/lib, overwrite: true}]}"), []string{"/var/lib is a folder with what belongs to Kiln"}},
		"folder":             {body("storage: {directories: [{path: /var/lib/mine}]}"), nil},
		"tree over all":      {body("storage: {trees: [{local: tree}]}"), []string{"storage.trees[0].local: /etc/hostname belongs to Kiln"}},
		"unit":               {body("systemd: {units: [{name: kubelet.service, contents: x}]}"), []string{"systemd.units[0].contents: kubelet.service belongs to Kiln; use dropins: [{name: 50-mine.conf"}},
		"masked":             {body("systemd: {units: [{name: containerd.service, mask: true}]}"), []string{"without containerd.service the machine is no node"}},
		"disabled":           {body("systemd: {units: [{name: firstboot.service, enabled: false}]}"), []string{"without firstboot.service the machine is no node"}},
		"drop-in":            {body("systemd: {units: [{name: kubelet.service, dropins: [{name: 50-mine.conf, contents: \"[Service]\\nNice=5\\n\"}]}]}"), nil},
		"file system":        {body("storage: {filesystems: [{device: /dev/vdb, format: ext4, path: /var/lib/containerd, with_mount_unit: true}]}"), nil},
		"etcd on a disk":     {body("storage: {filesystems: [{device: /dev/vdb, format: ext4, path: /var/lib/etcd}]}"), []string{"a fresh file system has lost+found in it, and etcd begins in an empty folder; set etcd.local.dataDir in a ClusterConfiguration to a folder in it, such as /var/lib/etcd/data"}},
		"etcd in a disk":     {"---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\netcd: {local: {dataDir: /var/lib/etcd/data}}\n---\n" + body("storage: {filesystems: [{device: /dev/vdb, format: ext4, path: /var/lib/etcd}]}"), nil},
		"all state":          {body("storage: {filesystems: [{device: /dev/vdb, format: ext4, path: /var/lib}]}"), []string{"/var/lib is a folder with what belongs to Kiln"}},
		"two at once":        {file("{path: etc/a, mode: x},", "{path: /etc/hostname}"), []string{"path: path not absolute", "mode: is text", "/etc/hostname belongs"}},
		"file behind a link": {snippetHead + "butane:\n- {variant: fcos, version: 1.4.0, storage: {files: [{path: /etc/a/c}]}}\n- {variant: fcos, version: 1.4.0, storage: {links: [{path: /etc/a, target: b}]}}\n", []string{"f:8:3: butane[1]: together with the snippets before it on node kiln-1: Ignition: "}},
		"external":           {snippetHead + "butane: [bad.bu]\n", []string{"bad.bu:4:10: storage.files[0].path: /etc/hostname belongs to Kiln"}},
		"external syntax":    {snippetHead + "butane: [syntax.bu]\n", []string{"syntax.bu:2:"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, list, _ := parseIn(t, tc.text, map[string]string{
				"bad.bu":            "variant: fcos\nversion: 1.4.0\nstorage: {files: [\n  {path: /etc/hostname}]}\n",
				"syntax.bu":         "variant: fcos\n\tversion: 1.4.0\n",
				"away":              "-> /etc/hosts",
				"tree/etc/hostname": "x\n",
				"f":                 "x",
			})
			list = append(list, CheckSnippets(c)...)
			list.Sort()
			if len(list) != len(tc.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(list), len(tc.want), list)
			}
			for i, w := range tc.want {
				if !strings.Contains(list[i].Error(), w) {
					t.Errorf("mistake %d is\n%s\nwant %s", i, list[i].Error(), w)
				}
			}
		})
	}
}

// TestSnippetsAreMerged: cluster, role, node, Kiln; of two the later wins.
func TestSnippetsAreMerged(t *testing.T) {
	text := strings.TrimSuffix(snippetHead, "}\n") + `, butane: [node.bu]}
roles:
  controlPlane: {butane: [role.bu]}
  worker: {butane: [worker.bu]}
butane: [cluster.bu]
`
	files := map[string]string{}
	for _, who := range []string{"cluster", "role", "node", "worker"} {
		files[who+".bu"] = `variant: fcos
version: 1.4.0
passwd: {users: [{name: root, ssh_authorized_keys: [` + who + `]}, {name: ` + who + `}]}
storage:
  files:
  - {path: /etc/` + who + `, contents: {local: content}}
  - {path: /etc/last, overwrite: true, contents: {inline: ` + who + `}}
  trees: [{local: tree, path: /etc/tree-` + who + `}]
systemd:
  units: [{name: ` + who + `.service, enabled: true, contents: "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"}]
`
	}
	files["role.bu"] = strings.Replace(files["role.bu"], "  - {path: /etc/role,", "  - {path: /etc/cluster, overwrite: true, contents: {inline: changed}}\n  - {path: /etc/role,", 1)
	files["content"], files["tree/a/b"] = "content\n", "b\n"
	c, list, _ := parseIn(t, text, files)
	if len(list) > 0 {
		t.Fatal(list)
	}
	c.SSH.AuthorizedKeys = []string{"ssh-ed25519 AAAA kiln"}
	r, err := Node(c, fixture(t), c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	cfg := decode(t, r)
	got := map[string]string{}
	for _, f := range cfg.Storage.Files {
		got[f.Path] = inline(t, *f.Contents.Source)
	}
	for path, want := range map[string]string{
		"/etc/cluster": "changed", "/etc/role": "content\n", "/etc/node": "content\n", "/etc/last": "node",
		"/etc/tree-node/a/b": "b\n", "/etc/hostname": "kiln-1\n",
	} {
		if got[path] != want {
			t.Errorf("%s holds %q, want %q", path, got[path], want)
		}
	}
	if _, there := got["/etc/worker"]; there {
		t.Error("a control plane has the workers' file")
	}
	if _, err := bootplan.Parse([]byte(got[bootplan.Path])); err != nil {
		t.Error(err)
	}
	var users, units []string
	for _, u := range cfg.Passwd.Users {
		users = append(users, u.Name)
		if u.Name == "root" && len(u.SSHAuthorizedKeys) != 4 {
			t.Errorf("root's keys: %v", u.SSHAuthorizedKeys)
		}
	}
	for _, u := range cfg.Systemd.Units {
		units = append(units, u.Name)
	}
	slices.Sort(users)
	slices.Sort(units)
	if !slices.Equal(users, []string{"cluster", "node", "role", "root"}) || !slices.Equal(units, []string{"cluster.service", "node.service", "role.service"}) {
		t.Errorf("users %v, units %v", users, units)
	}
	second, err := Node(c, fixture(t), c.Nodes[0])
	if err != nil || !second.Ignition.Equal(r.Ignition) {
		t.Errorf("two runs, two configs: %v", err)
	}
}

// decode reads a config whose files need not be Kiln's.
func decode(t *testing.T, r Rendered) types.Config {
	t.Helper()
	var cfg types.Config
	if err := json.Unmarshal(r.Ignition.Reveal(), &cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestNodeRefusesBadSnippets(t *testing.T) {
	c, list, dir := parseIn(t, snippetHead+"butane: [a.bu]\n", map[string]string{"a.bu": "variant: fcos\nversion: 1.4.0\n"})
	if len(list) > 0 {
		t.Fatal(list)
	}
	if _, err := Node(c, fixture(t), c.Nodes[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.bu"), []byte("variant: fcos\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Node(c, fixture(t), c.Nodes[0]); err == nil || !strings.Contains(err.Error(), "a.bu:1:1: version: is missing") {
		t.Errorf("changed after the check: %v", err)
	}
}

func TestOwnedPathsAreWhatIsRendered(t *testing.T) {
	c := cluster(t, func(c *spec.Cluster) {
		c.ControlPlaneEndpoint, c.Time.Servers = "api.example.org", []string{"ntp.example.org"}
	})
	_, cfg, _ := render(t, c, 0)
	var paths []string
	for _, f := range cfg.Storage.Files {
		paths = append(paths, f.Path)
	}
	for _, d := range cfg.Storage.Directories {
		paths = append(paths, d.Path)
	}
	for _, p := range paths {
		if !slices.ContainsFunc(ownedPaths(bootplan.Cluster{}), func(o owned) bool { return p == o.path || o.tree && within(p, o.path) }) {
			t.Errorf("%s is rendered, but a snippet may set it", p)
		}
	}
}

func FuzzSnippet(f *testing.F) {
	f.Add([]byte("variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: /etc/a, mode: x}]}\n"))
	f.Add([]byte("variant: fcos\nversion: 1.4.0\nsystemd: {units: [1, {name: a.service, enabled: []}]}\n"))
	f.Add([]byte("variant: 1\nversion: []\nstorage: 1\n"))
	f.Add([]byte("variant: fcos\nversion: 1.4.0\nstorage: {trees: [{local: ..}], files: [null]}\npasswd:\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, list := diag.Parse(filepath.Join(dir, "f"), data)
		if doc.Root == nil {
			return
		}
		o := &opened{doc: doc, root: doc.Root, filesDir: dir, list: &list}
		o.check(bootplan.Cluster{})
		var out strings.Builder
		if err := list.Print(&out); err != nil {
			t.Fatal(err)
		}
	})
}
