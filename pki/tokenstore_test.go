package pki

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func tokenStore(t *testing.T) (dir string, load func() *Authority, o Options) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "secrets")
	o = Options{Algorithm: ECDSAP256, ClusterName: "demo", Endpoint: "192.0.2.1:6443", TokenTTL: time.Hour, Now: time.Now().UTC().Truncate(time.Second)}
	return dir, func() *Authority {
		t.Helper()
		a, err := LoadOrCreate(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}, o
}

func newToken(t *testing.T, now time.Time, ttl time.Duration) Token {
	t.Helper()
	tok, err := NewToken(now, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestStoreToken(t *testing.T) {
	dir, load, o := tokenStore(t)
	if err := StoreToken(dir, "", newToken(t, o.Now, time.Hour)); err == nil {
		t.Error("a token of a cluster that does not exist is stored")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder was made: %v", err)
	}
	first := load()
	later := o.Now.Add(48 * time.Hour)
	renewed, own := newToken(t, later, time.Hour), newToken(t, later.Add(time.Minute), time.Hour)
	if err := StoreToken(dir, "", renewed); err != nil {
		t.Fatal(err)
	}
	if err := StoreToken(dir, "worker-1", own); err != nil {
		t.Fatal(err)
	}
	second := load()
	if !second.Token.Value().Equal(renewed.Value()) || !second.Token.Expires.Equal(later.Add(time.Hour)) || second.Token.Value().Equal(first.Token.Value()) {
		t.Errorf("token %s expires %s", second.Token.ID, second.Token.Expires)
	}
	if string(second.CA.CertPEM) != string(first.CA.CertPEM) {
		t.Error("the CA is another")
	}
	if got := second.NodeTokens["worker-1"]; len(second.NodeTokens) != 1 || !got.Value().Equal(own.Value()) || !got.Expires.Equal(own.Expires) {
		t.Errorf("tokens of nodes: %v", second.NodeTokens)
	}
	for path, want := range map[string]os.FileMode{"tokens": 0o700, "tokens/worker-1.yaml": 0o600, "bootstrap-token.yaml": 0o600} {
		if st, err := os.Stat(filepath.Join(dir, path)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	for _, node := range []string{"../x", "a/b", ".hidden"} {
		if err := StoreToken(dir, node, own); err == nil {
			t.Errorf("node %q is accepted", node)
		}
	}
}

func TestTokenFor(t *testing.T) {
	now := time.Now()
	short, long, forever := newToken(t, now, time.Hour), newToken(t, now, 2*time.Hour), newToken(t, now, 0)
	for name, c := range map[string]struct{ cluster, own, want Token }{
		"own lives longer":     {short, long, long},
		"cluster lives longer": {long, short, long},
		"own is for ever":      {long, forever, forever},
		"cluster is for ever":  {forever, long, forever},
		"both are for ever":    {forever, newToken(t, now, 0), Token{}},
	} {
		a := &Authority{Token: c.cluster, NodeTokens: map[string]Token{"w": c.own}}
		want := c.want
		if want.ID == "" {
			want = c.own
		}
		if got := a.TokenFor("w"); got.ID != want.ID {
			t.Errorf("%s: %s", name, got.ID)
		}
		if got := a.TokenFor("other"); got.ID != c.cluster.ID {
			t.Errorf("%s: another node gets %s", name, got.ID)
		}
	}
}

func TestDamagedNodeToken(t *testing.T) {
	dir, load, o := tokenStore(t)
	load()
	if err := StoreToken(dir, "w", newToken(t, o.Now, 0)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokens", "w.yaml")
	if err := os.WriteFile(path, []byte("token: geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, o); err == nil || !strings.Contains(err.Error(), "w.yaml") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, o); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("%v", err)
	}
}
