package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/nodetest"
	"github.com/kiln-os/kiln/internal/phase"
)

// badInput are wrong values of flags and arguments, each with what is said of it. NODE
// is the folder of a control plane, OTHER that of one of another cluster, WORK one with
// the files of badFiles. A code of 0 means that of a wrong command line.
var badInput = []struct {
	args string
	want string
	code int
}{
	{args: "token create SECRET.0123456789abcdef", want: "bootstrap token: want 6 characters, a dot and 16 characters, all of a-z and 0-9"},
	{args: "token create abcdef0123456789abcdef", want: "bootstrap token: want 6 characters"},
	{args: "token create abcdef.0123456789abcdef0", want: "bootstrap token: want 6 characters"},
	{args: "token create --ttl -5m", want: "--ttl: a token's life cannot be -5m0s: give a duration such as 24h, or 0"},
	{args: "token create --ttl 24", want: `invalid argument "24" for "--ttl"`},
	{args: "token create --ttl 9999999999h", want: `invalid argument "9999999999h" for "--ttl"`},
	{args: "token create --usages=", want: "--usages is empty: a token is for signing, for authentication, or for both"},
	{args: "token create --usages sign", want: `unknown usage "sign" of a token; there are signing and authentication`},
	{args: "token create --groups system:masters", want: `group "system:masters" of a token: it must match`},
	{args: "token create --usages signing --groups system:bootstrappers:a", want: "a token can have groups only if its usages include authentication"},
	{args: "token create --print-join-command --certificate-key xyz", want: "--certificate-key: a certificate key is 64 hexadecimal digits"},
	{args: "token create --certificate-key 00", want: "--certificate-key is for --print-join-command"},
	{args: "token list -o wide", want: `unknown output format "wide"; there are text, json, yaml`},
	{args: "token list --json --output yaml", want: "--json and -o yaml contradict each other"},
	{args: "token list --kubeconfig WORK/none", want: "kubeconfig: open WORK/none: no such file", code: 1},
	{args: "token list --kubeconfig WORK/text", want: "WORK/text is not a kubeconfig", code: 1},
	{args: "token list --kubeconfig WORK/nocluster", want: "WORK/nocluster: its current context names no cluster", code: 1},
	{args: "token delete abcde", want: "argument 1: want a token's id, 6 characters of a-z and 0-9, or a whole token"},
	{args: "certs check-expiration --root NODE --cert-dir /none", want: "--cert-dir: stat NODE/none: no such file"},
	{args: "certs check-expiration --root NODE --cert-dir /etc/kubernetes/admin.conf", want: "--cert-dir: NODE/etc/kubernetes/admin.conf is not a folder"},
	{args: "certs check-expiration --root NODE -o table", want: `unknown output format "table"`},
	{args: "certs renew --root NODE apisever", want: `unknown certificate "apisever"; there are admin.conf, apiserver, `},
	{args: "certs renew --root NODE all --cert-dir /none", want: "--cert-dir: stat NODE/none: no such file"},
	{args: "certs renew --root MIXED apiserver", want: "the key is not the key of CA", code: 1},
	{args: "certs renew --root MIXED all", want: "the key is not the key of CA", code: 1},
	{args: "certs upload --root NODE --certificate-key 00", want: "--certificate-key: a certificate key is 64 hexadecimal digits"},
	{args: "certs upload --root NODE --kubeconfig WORK/text", want: "WORK/text is not a kubeconfig", code: 1},
	{args: "certs upload --root NODE --cert-dir /none", want: "--cert-dir: stat NODE/none: no such file"},
	{args: "certs generate-csr --root NODE", want: "NODE/etc/kubernetes/pki/apiserver.key exists already: nothing was written", code: 1},
	{args: "certs generate-csr --root NODE --cert-dir WORK/text --kubeconfig-dir WORK/text", want: "not a directory", code: 1},
	{args: "certs generate-csr --root NODE --config WORK/none", want: "--config: open WORK/none: no such file"},
	{args: "certs generate-csr --root NODE --config WORK/text", want: "text:1:"},
	{args: "certs generate-csr --root NODE --config WORK/empty", want: "empty: the file is empty; want ClusterConfiguration and InitConfiguration"},
	{args: "kubeconfig user --root NODE", want: "takes --client-name NAME"},
	{args: "kubeconfig user --root NODE --client-name=", want: "takes --client-name NAME"},
	{args: "kubeconfig user --root NODE --client-name a --org=,", want: "an organization of the user is empty"},
	{args: "kubeconfig user --root NODE --client-name a --validity-period -1h", want: "--validity-period -1h0m0s: give a duration such as 720h"},
	{args: "kubeconfig user --root NODE --client-name a --validity-period 30d", want: `invalid argument "30d" for "--validity-period"`},
	{args: "kubeconfig user --root NODE --client-name a --token SECRET\tTOKEN", want: "the user's token has spaces or control characters in it: a token is one word"},
	{args: "kubeconfig user --root NODE --client-name a --cert-dir /none", want: "--cert-dir: stat NODE/none: no such file"},
	{args: "kubeconfig user --root OTHERCA --client-name a", want: "OTHERCA/etc/kubernetes/admin.conf trusts another CA than OTHERCA/etc/kubernetes/pki/ca.crt", code: 1},
	{args: "kubeconfig user --root MIXED --client-name a", want: "the key is not the key of CA", code: 1},
	{args: "config images list --kubernetes-version 1.37", want: `--kubernetes-version: "1.37" is no version of Kubernetes, such as v1.37.2`},
	{args: "config images list --kubernetes-version stable-1", want: `"stable-1" is no version of Kubernetes`},
	{args: "config images list --kubernetes-version v1.9.0", want: "the images of Kubernetes v1.9.0 are not known here: this is for 1.36 and 1.37"},
	{args: "config images list --kubernetes-version v1.37.2 --image-repository https://registry.example.com", want: `--image-repository: "https://registry.example.com" is not a registry and folder, such as registry.example.com/k8s`},
	{args: "config images list --output table", want: `unknown output format "table"`},
	{args: "reset --force --drain-timeout -5m", want: "--drain-timeout -5m0s: give a duration such as 5m"},
	{args: "reset --drain-timeout soon", want: `invalid argument "soon" for "--drain-timeout"`},
	{args: "reset --force --root NODE", want: "only the running machine can be reset"},
	{args: "init --root WORK", want: "boot plan: open WORK/etc/kiln/boot.yaml: no such file", code: 3},
	{args: "join --root NODE", want: "role is init, not join-worker or join-control-plane", code: 3},
	{args: "run --root TWOPLANS", want: "boot plan: there is a second document; want one", code: 3},
}

// anyText are flags for which every text is a right one.
var anyText = []string{"--description"}

// TestBadInput: a wrong value is refused with a message that says what would be right,
// nothing is changed, and nothing that may be a secret is shown.
func TestBadInput(t *testing.T) {
	work := t.TempDir()
	place := map[string]string{}
	for _, name := range []string{"NODE", "MIXED", "OTHERCA", "TWOPLANS", "WORK"} {
		place[name] = filepath.Join(work, strings.ToLower(name))
	}
	for _, name := range []string{"NODE", "MIXED", "OTHERCA"} {
		if err := nodetest.ControlPlane(context.Background(), nodetest.Config(), host.Paths{Root: place[name]}, phase.NewPrinter(io.Discard)); err != nil {
			t.Fatal(err)
		}
	}
	pkiFile := func(node, name string) string { return host.Paths{Root: place[node]}.PKI(name) }
	copyFile(t, pkiFile("NODE", "ca.key"), pkiFile("MIXED", "ca.key"))
	copyFile(t, pkiFile("NODE", "ca.key"), pkiFile("OTHERCA", "ca.key"))
	copyFile(t, pkiFile("NODE", "ca.crt"), pkiFile("OTHERCA", "ca.crt"))
	plan, err := os.ReadFile(host.Paths{Root: place["NODE"]}.BootPlan())
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(place["WORK"], "text"):           "SECRET: [",
		filepath.Join(place["WORK"], "empty"):          "",
		filepath.Join(place["WORK"], "nocluster"):      "apiVersion: v1\nkind: Config\n",
		host.Paths{Root: place["TWOPLANS"]}.BootPlan(): string(plan) + "---\n" + string(plan),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(s string) string {
		for _, name := range []string{"OTHERCA", "TWOPLANS", "NODE", "MIXED", "WORK"} {
			s = strings.ReplaceAll(s, name, place[name])
		}
		return s
	}
	t.Setenv("KUBECONFIG", filepath.Join(place["WORK"], "none"))
	before := tree(t, work)
	for _, tc := range badInput {
		t.Run(tc.args, func(t *testing.T) {
			args := strings.Split(tc.args, " ")
			for i := range args {
				args[i] = fill(args[i])
			}
			var out bytes.Buffer
			err := Run(context.Background(), args, Streams{In: strings.NewReader(""), Out: &out, Err: &out})
			if err == nil || !strings.Contains(err.Error(), fill(tc.want)) {
				t.Fatalf("got %v, want %s", err, fill(tc.want))
			}
			code := tc.code
			if code == 0 {
				code = exitUsage
			}
			if got := exitCode(err); got != code {
				t.Errorf("exit code %d, want %d: %v", got, code, err)
			}
			if text := err.Error() + out.String(); strings.Contains(text, "SECRET") || strings.Contains(text, "0123456789abcde") {
				t.Errorf("it shows what may be a secret: %s", text)
			}
			if after := tree(t, work); !reflect.DeepEqual(before, after) {
				t.Error("files were changed")
			}
		})
	}
}

// TestBadInputIsComplete: every flag of kubeadm's commands is in badInput, and every
// switch refuses what is neither true nor false.
func TestBadInputIsComplete(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		path := strings.TrimPrefix(c.CommandPath(), "firstboot ")
		if c.HasSubCommands() || !slices.Contains([]string{"token", "certs", "kubeconfig", "config", "reset", "init", "join", "run"}, strings.Fields(path)[0]) {
			return
		}
		check := func(f *pflag.Flag) {
			flag := "--" + f.Name
			if f.Name == "help" || slices.Contains(anyText, flag) {
				return
			}
			if f.Value.Type() == "bool" {
				err := Run(context.Background(), append(strings.Fields(path), flag+"=maybe"), Streams{Out: io.Discard, Err: io.Discard})
				if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), flag) {
					t.Errorf("%s %s=maybe: %v", path, flag, err)
				}
				return
			}
			group := strings.Fields(path)[0]
			for _, tc := range badInput {
				of := strings.HasPrefix(tc.args, path+" ") || c.InheritedFlags().Lookup(f.Name) != nil && strings.HasPrefix(tc.args, group+" ")
				if of && (strings.Contains(tc.args, flag+" ") || strings.Contains(tc.args, flag+"=") || f.Shorthand != "" && strings.Contains(tc.args, " -"+f.Shorthand+" ")) {
					return
				}
			}
			if f.Name != "root" {
				t.Errorf("badInput has no wrong value of %s %s", path, flag)
			}
		}
		c.LocalFlags().VisitAll(check)
		c.InheritedFlags().VisitAll(check)
	}
	visit(newRoot(Streams{Out: io.Discard, Err: io.Discard}))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree maps all files below dir to their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			out[path] = ""
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
