package tokens

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kiln-os/kiln/internal/secret"
)

const tokenSecret = "0123456789abcdef"

func token(change func(*Token)) Token {
	t := Token{
		ID: "abcdef", Secret: secret.FromString(tokenSecret), Description: "rack 7",
		Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Usages: Usages(), Groups: []string{NodeGroup},
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Token)
		want   []string // parts of the error; none means that it is right
	}{
		"usual":          {nil, nil},
		"signing alone":  {func(t *Token) { t.Usages, t.Groups = []string{Signing}, nil }, nil},
		"no usage":       {func(t *Token) { t.Usages, t.Groups = nil, nil }, nil},
		"long group":     {func(t *Token) { t.Groups = []string{"system:bootstrappers:" + strings.Repeat("a", 256)} }, nil},
		"short id":       {func(t *Token) { t.ID = "abcde" }, []string{"want 6 characters"}},
		"upper case":     {func(t *Token) { t.Secret = secret.FromString("0123456789ABCDEF") }, []string{"want 6 characters"}},
		"unknown usage":  {func(t *Token) { t.Usages = []string{"sining", Authentication} }, []string{`unknown usage "sining"`, "signing and authentication"}},
		"groups, no use": {func(t *Token) { t.Usages = []string{Signing} }, []string{"only if its usages include authentication"}},
		"foreign group":  {func(t *Token) { t.Groups = []string{"system:masters"} }, []string{`group "system:masters"`, "system:bootstrappers:"}},
		"group's end":    {func(t *Token) { t.Groups = []string{"system:bootstrappers:a-"} }, []string{"must match"}},
		"all of it": {func(t *Token) { t.ID, t.Usages, t.Groups = "", []string{"x"}, []string{"y"} },
			[]string{"want 6 characters", `unknown usage "x"`, "only if its usages", `group "y"`}},
	} {
		err := token(c.change).Validate()
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", name, err, w)
			}
		}
		if err != nil && strings.Contains(strings.ToLower(err.Error()), tokenSecret) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 5, time.UTC)
	if e, err := Expiry(now, 2*time.Hour); err != nil || !e.Equal(time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", e, err)
	}
	if e, err := Expiry(now, 0); err != nil || !e.IsZero() {
		t.Errorf("0: %v, %v", e, err)
	}
	if _, err := Expiry(now, -time.Second); err == nil || !strings.Contains(err.Error(), "0 for a token that never expires") {
		t.Errorf("negative: %v", err)
	}
}

// TestObject compares with what kubeadm token create makes.
func TestObject(t *testing.T) {
	got, err := yaml.Marshal(token(nil).Object())
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: v1
data:
  auth-extra-groups: c3lzdGVtOmJvb3RzdHJhcHBlcnM6a3ViZWFkbTpkZWZhdWx0LW5vZGUtdG9rZW4=
  description: cmFjayA3
  expiration: MjAyNi0wMS0wMlQwMzowNDowNVo=
  token-id: YWJjZGVm
  token-secret: MDEyMzQ1Njc4OWFiY2RlZg==
  usage-bootstrap-authentication: dHJ1ZQ==
  usage-bootstrap-signing: dHJ1ZQ==
kind: Secret
metadata:
  name: bootstrap-token-abcdef
  namespace: kube-system
type: bootstrap.kubernetes.io/token
`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	bare := token(func(t *Token) {
		t.Description, t.Expires, t.Usages, t.Groups = "", time.Time{}, nil, nil
	}).Object()
	if len(bare.Data) != 2 {
		t.Errorf("a bare token: %v", bare.Data)
	}
}

func TestFromObject(t *testing.T) {
	for _, want := range []Token{token(nil), token(func(t *Token) {
		t.Description, t.Expires, t.Usages, t.Groups = "", time.Time{}, nil, nil
	}), token(func(t *Token) { t.Groups = append(t.Groups, "system:bootstrappers:x") })} {
		got, err := FromObject(want.Object())
		if err != nil {
			t.Fatal(err)
		}
		if !got.Value().Equal(want.Value()) || !got.Expires.Equal(want.Expires) || fmt.Sprint(got.Groups) != fmt.Sprint(want.Groups) ||
			got.Description != want.Description || len(got.Usages) != len(want.Usages) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for name, c := range map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"other name": {func(s *corev1.Secret) { s.Name = "bootstrap-token-other0" }, "does not belong to its name"},
		"no id":      {func(s *corev1.Secret) { delete(s.Data, "token-id") }, "does not belong to its name"},
		"no secret":  {func(s *corev1.Secret) { delete(s.Data, "token-secret") }, "want 6 characters"},
		"expiration": {func(s *corev1.Secret) { s.Data["expiration"] = []byte(tokenSecret) }, "RFC 3339"},
	} {
		s := token(nil).Object()
		c.change(s)
		if _, err := FromObject(s); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), tokenSecret) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// A usage counts with the value true alone.
	s := token(nil).Object()
	s.Data["usage-bootstrap-signing"] = []byte("yes")
	if got, err := FromObject(s); err != nil || fmt.Sprint(got.Usages) != "[authentication]" {
		t.Errorf("%v, %v", got.Usages, err)
	}
}

func FuzzFromObject(f *testing.F) {
	f.Add("bootstrap-token-abcdef", "abcdef", tokenSecret, "2026-01-02T03:04:05Z", "a,b")
	f.Add("x", "", "", "", "")
	f.Fuzz(func(t *testing.T, name, id, sec, expiration, groups string) {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-system"}, Data: map[string][]byte{
			"token-id": []byte(id), "token-secret": []byte(sec), "expiration": []byte(expiration), "auth-extra-groups": []byte(groups),
		}}
		tok, err := FromObject(s)
		if err != nil {
			return
		}
		if again, err := FromObject(tok.Object()); err != nil || !again.Value().Equal(tok.Value()) {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}

func TestParseID(t *testing.T) {
	for in, want := range map[string]string{"abcdef": "abcdef", "abcdef." + tokenSecret: "abcdef"} {
		if got, err := ParseID(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "ABCDEF", "abcde", "abcdef.", "abcdef.0123456789abcde", "abcdef." + tokenSecret + "0"} {
		if got, err := ParseID(in); err == nil || len(in) > 10 && strings.Contains(err.Error(), in[7:]) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// TestWriteTable compares with a table that kubeadm printed for tokens with the
// longest fields.
func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	now := time.Date(2026, 1, 1, 3, 4, 5, 0, time.UTC)
	list := []Token{token(nil), token(func(t *Token) {
		t.ID, t.Description, t.Expires, t.Usages, t.Groups = "zzzzzz", "", time.Time{}, nil, nil
	})}
	if err := WriteTable(&b, list, now); err != nil {
		t.Fatal(err)
	}
	want := `TOKEN                     TTL         EXPIRES                USAGES                   DESCRIPTION                                                EXTRA GROUPS
abcdef.0123456789abcdef   1d          2026-01-02T03:04:05Z   signing,authentication   rack 7                                                     system:bootstrappers:kubeadm:default-node-token
zzzzzz.0123456789abcdef   <forever>   <never>                <none>                   <none>                                                     <none>
`
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := WriteTable(&b, nil, now); err != nil || b.Len() > 0 {
		t.Errorf("no tokens: %q, %v", b.String(), err)
	}
}

func TestJoinCommand(t *testing.T) {
	for _, c := range []struct{ server, key, want string }{
		{"https://10.0.0.1:6443", "", "kubeadm join 10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:aa"},
		{"https://[fd00::1]:6443", "", "kubeadm join [fd00::1]:6443 --token"},
		{"https://api.example.org", "kk", "kubeadm join api.example.org:443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:aa --control-plane --certificate-key kk"},
	} {
		got, err := JoinCommand(token(nil), c.server, []string{"sha256:aa"}, c.key)
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, %v", c.server, got, err)
		}
	}
	if _, err := JoinCommand(token(nil), "nowhere", nil, ""); err == nil {
		t.Error("a server without a host is accepted")
	}
}
