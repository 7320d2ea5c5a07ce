package pki

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/secret"
)

var opts = Options{Algorithm: ECDSAP256, ClusterName: "demo", Endpoint: "10.0.2.15:6443", TokenTTL: 24 * time.Hour, Now: now}

var secretFiles = []string{
	"admin.conf", "admin.crt", "admin.key", "bootstrap-token.yaml", "ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key",
	"front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub",
}

func create(t *testing.T, dir string, o Options) *Authority {
	t.Helper()
	a, err := LoadOrCreate(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// snapshot maps every file of dir to its mode and content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("folder %s has mode %v", p, info.Mode())
			}
			return nil
		}
		b, err := os.ReadFile(p)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("file %s has mode %v", rel, info.Mode())
		}
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSecondCallReusesEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	first := create(t, dir, opts)
	before := snapshot(t, dir)
	for _, f := range secretFiles {
		if _, ok := before[f]; !ok {
			t.Errorf("%s is missing", f)
		}
	}
	if len(before) != len(secretFiles) {
		t.Errorf("%d files, want %d", len(before), len(secretFiles))
	}
	later := opts
	later.Now = now.Add(90 * 24 * time.Hour)
	second := create(t, dir, later)
	for name, text := range snapshot(t, dir) {
		if before[name] != text {
			t.Errorf("%s changed", name)
		}
	}
	if !second.Created().Equal(first.Created()) || !second.Token.Expires.Equal(now.Add(24*time.Hour)) {
		t.Errorf("created %s, expires %s: the token's life does not count from the cluster's creation", second.Created(), second.Token.Expires)
	}
	if !second.AdminConf.Equal(first.AdminConf) || !second.ServiceAccountKey.Equal(first.ServiceAccountKey) {
		t.Error("the second call returned other secrets")
	}
}

func TestInterruptedCreationIsCompleted(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "secrets")
	create(t, whole, opts)
	files := snapshot(t, whole)
	// The order in which files appear; a crash leaves any prefix of it.
	order := []string{"ca.key", "ca.crt", "front-proxy-ca.key", "front-proxy-ca.crt", "etcd/ca.key", "etcd/ca.crt",
		"sa.key", "sa.pub", "bootstrap-token.yaml", "admin.key", "admin.crt", "admin.conf"}
	for n := range order {
		t.Run(fmt.Sprintf("after %d files", n), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "secrets")
			if err := os.MkdirAll(filepath.Join(dir, "etcd"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, f := range order[:n] {
				write(t, filepath.Join(dir, f), files[f])
			}
			write(t, filepath.Join(dir, ".ca.key.tmp-123"), "half a key")
			create(t, dir, opts)
			after := snapshot(t, dir)
			if len(after) != len(order) {
				t.Errorf("%d files", len(after))
			}
			for _, f := range order[:n] {
				if after[f] != files[f] {
					t.Errorf("%s was replaced", f)
				}
			}
		})
	}
}

func TestDamagedFoldersAreRefused(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	create(t, other, opts)
	foreign := snapshot(t, other)
	for name, tc := range map[string]struct {
		damage func(t *testing.T, dir string)
		opts   func(*Options)
		want   []string
	}{
		"external CA, admin key lost":  {damage: rmAll("ca.key", "admin.key"), want: []string{"admin.crt exists but", "put the key back"}},
		"external CA, expired":         {damage: rm("etcd/ca.key"), opts: func(o *Options) { o.Now = now.Add(11 * CAValidity / 10) }, want: []string{"expired"}},
		"external CA, of a leaf":       {damage: func(t *testing.T, dir string) { rm("ca.key")(t, dir); leafAsCA(t, dir) }, want: []string{"ca.crt", "is not a CA"}},
		"public key without key":       {damage: rm("sa.key"), want: []string{"sa.pub", "sa.key"}},
		"admin certificate alone":      {damage: rm("admin.key"), want: []string{"remove", "admin.crt"}},
		"CA of another cluster":        {damage: put("ca.crt", foreign["ca.crt"]), want: []string{"ca.crt", "not the key of CA"}},
		"both halves of another's CA":  {damage: put("ca.crt", foreign["ca.crt"], "ca.key", foreign["ca.key"]), want: []string{"admin.crt", "was not issued by"}},
		"public key of another":        {damage: put("sa.pub", foreign["sa.pub"]), want: []string{"sa.pub", "does not belong"}},
		"empty key":                    {damage: put("front-proxy-ca.key", ""), want: []string{"front-proxy-ca.key", "no PEM block"}},
		"broken token":                 {damage: put("bootstrap-token.yaml", "token: hunter2\ncreated: 2030-01-01T00:00:00Z\n"), want: []string{"bootstrap-token.yaml", "16 characters"}},
		"token without its birth":      {damage: put("bootstrap-token.yaml", "token: abcdef.0123456789abcdef\n"), want: []string{"created"}},
		"token file is no YAML":        {damage: put("bootstrap-token.yaml", "hunter2: ["), want: []string{"bootstrap-token.yaml"}},
		"folder readable by the group": {damage: chmod(".", 0o750), want: []string{"0750", "chmod 700"}},
		"key readable by all":          {damage: chmod("etcd/ca.key", 0o644), want: []string{"0644", "chmod 600", "etcd/ca.key"}},
		"another algorithm":            {opts: func(o *Options) { o.Algorithm = RSA2048 }, want: []string{"ECDSA-P256", "RSA-2048"}},
		"expired":                      {opts: func(o *Options) { o.Now = now.Add(11 * CAValidity / 10) }, want: []string{"expired", "2040"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "secrets")
			create(t, dir, opts)
			o := opts
			if tc.damage != nil {
				tc.damage(t, dir)
			}
			if tc.opts != nil {
				tc.opts(&o)
			}
			_, err := LoadOrCreate(dir, o)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error shows a secret: %v", err)
			}
		})
	}
}

func TestAdminConfFollowsTheEndpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	create(t, dir, opts)
	before := snapshot(t, dir)
	moved := opts
	moved.Endpoint = "api.example.org:6443"
	a := create(t, dir, moved)
	after := snapshot(t, dir)
	if after["admin.crt"] != before["admin.crt"] || after["admin.key"] != before["admin.key"] {
		t.Error("the administrator's certificate changed")
	}
	if after["admin.conf"] != a.AdminConf.RevealString() {
		t.Error("admin.conf is not what the Authority holds")
	}
	cfg, err := clientcmd.Load(a.AdminConf.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if s := cfg.Clusters["demo"].Server; s != "https://api.example.org:6443" {
		t.Errorf("server %q", s)
	}
}

func TestExpiredAdminCertificateIsIssuedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	create(t, dir, opts)
	before := snapshot(t, dir)
	later := opts
	later.Now = now.Add(LeafValidity + time.Hour)
	create(t, dir, later)
	after := snapshot(t, dir)
	if after["admin.crt"] == before["admin.crt"] || after["ca.crt"] != before["ca.crt"] {
		t.Error("want a new admin.crt and the old ca.crt")
	}
	if err := CheckChain([]byte(after["admin.crt"]), []byte(after["ca.crt"]), later.Now); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCreationsAgree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	var wg sync.WaitGroup
	got := make([]*Authority, 4)
	for i := range got {
		wg.Go(func() {
			a, err := LoadOrCreate(dir, opts)
			if err != nil {
				t.Error(err)
			}
			got[i] = a
		})
	}
	wg.Wait()
	for _, a := range got[1:] {
		if a == nil || got[0] == nil || !a.CA.KeyPEM.Equal(got[0].CA.KeyPEM) || !a.Token.Value().Equal(got[0].Token.Value()) {
			t.Fatal("two runs made two clusters")
		}
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	a := create(t, filepath.Join(t.TempDir(), "secrets"), opts)
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range []any{a, *a, a.CA, *a.CA, a.Token, &a.Token, Kubeconfig{KeyPEM: a.CA.KeyPEM}, a.AdminConf} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		log.Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	key := a.CA.KeyPEM.RevealString()
	for _, bad := range []string{a.Token.Secret.RevealString(), strings.Split(key, "\n")[1], "PRIVATE KEY",
		fmt.Sprintf("%x", key[:20]), strings.Trim(fmt.Sprint([]byte(key[:20])), "[]")} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("printed: %q", bad)
		}
	}
	if _, err := ParseKey(secret.FromString("-----BEGIN EC PRIVATE KEY-----\naHVudGVyMg==\n-----END EC PRIVATE KEY-----\n")); err == nil || strings.Contains(err.Error(), "aHVu") {
		t.Errorf("error %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rm(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func rmAll(names ...string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, n := range names {
			rm(n)(t, dir)
		}
	}
}

// leafAsCA puts the administrator's certificate in the place of the CA's.
func leafAsCA(t *testing.T, dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "admin.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.crt"), string(data))
}

// TestExternalCAs: a CA without its key is taken as it is, and nothing is issued with it.
func TestExternalCAs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	create(t, dir, opts)
	for _, f := range []string{"ca.key", "front-proxy-ca.key", "etcd/ca.key"} {
		rm(f)(t, dir)
	}
	before := snapshot(t, dir)
	a := create(t, dir, opts)
	for name, ca := range a.CAs() {
		if !ca.KeyPEM.IsZero() || len(ca.CertPEM) == 0 {
			t.Errorf("%s has a key", name)
		}
	}
	if a.AdminConf.IsZero() || !reflect.DeepEqual(before, snapshot(t, dir)) {
		t.Error("the administrator's certificate, which is there, is not used")
	}
	// Without it nobody can issue another one.
	for _, f := range []string{"admin.crt", "admin.key", "admin.conf"} {
		rm(f)(t, dir)
	}
	before = snapshot(t, dir)
	if a := create(t, dir, opts); !a.AdminConf.IsZero() || !reflect.DeepEqual(before, snapshot(t, dir)) {
		t.Error("something was made that no CA has signed")
	}
	// One that expired is not used any more.
	later := opts
	later.Now = now.Add(2 * LeafValidity)
	dir = filepath.Join(t.TempDir(), "secrets")
	create(t, dir, opts)
	rm("ca.key")(t, dir)
	if a := create(t, dir, later); !a.AdminConf.IsZero() {
		t.Error("an expired certificate is in admin.conf")
	}
}

func put(pairs ...string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for i := 0; i < len(pairs); i += 2 {
			write(t, filepath.Join(dir, pairs[i]), pairs[i+1])
		}
	}
}

func chmod(name string, mode os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestValidityPeriods(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	o := Options{Algorithm: ECDSAP256, ClusterName: "demo", Endpoint: "10.0.2.15:6443", Now: time.Now(), CAValidity: 1000 * time.Hour, LeafValidity: 100 * time.Hour}
	a := create(t, dir, o)
	if left := time.Until(a.EtcdCA.Cert.NotAfter); left > 1000*time.Hour || left < 999*time.Hour {
		t.Errorf("the CA lives another %s", left)
	}
	data, err := os.ReadFile(filepath.Join(dir, "admin.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCertificate(data)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(cert.NotAfter); left > 100*time.Hour || left < 99*time.Hour {
		t.Errorf("admin.crt lives another %s", left)
	}
	create(t, dir, o)
	o.CAValidity = 0
	create(t, dir, o) // not asked for: what is there is right
	o.CAValidity = 2000 * time.Hour
	if _, err := LoadOrCreate(dir, o); err == nil || !strings.Contains(err.Error(), "was made for 1000h0m0s, but 2000h0m0s is asked for") {
		t.Errorf("a CA of another life: %v", err)
	}
}
