//go:build integration

package apitest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/kubeapi"
	"github.com/kiln-os/kiln/internal/renewal"
	"github.com/kiln-os/kiln/internal/staticpod"
	"github.com/kiln-os/kiln/internal/testtools"
	"github.com/kiln-os/kiln/pki"
)

// serving is a cluster with a node in which tokens can be used.
func serving(t *testing.T) *Cluster {
	t.Helper()
	c := New(t, nil)
	c.Start(t, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler)
	c.StartKubelet()
	for _, name := range []string{"wait-control-plane", "upload-config"} {
		run(t, c, name)
	}
	registerNode(t, c)
	run(t, c, "mark-control-plane")
	run(t, c, "bootstrap-token")
	return c
}

// firstboot compiles the program once a test.
func firstboot(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "firstboot")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/firstboot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// must runs a program and returns its standard output.
func must(t *testing.T, argv ...string) string {
	t.Helper()
	out, errOut, err := try(argv...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv[1:], err, errOut)
	}
	return out
}

func try(argv ...string) (string, string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	return out.String(), errOut.String(), err
}

// whoAmI is the user that a client is.
func whoAmI(t *testing.T, client kubernetes.Interface) (authenticationv1.UserInfo, error) {
	t.Helper()
	r, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return r.Status.UserInfo, nil
}

// TestTokens lets firstboot and real kubeadm work on the same tokens.
func TestTokens(t *testing.T) {
	c := serving(t)
	fb, kubeadm := firstboot(t), testtools.Kubeadm(t)
	conf := "--kubeconfig=" + c.Paths.Kubeconfig(kubeapi.AdminConf)
	token := func(program, verb string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(must(t, append([]string{program, "token", verb, conf}, args...)...))
	}

	ours := token(fb, "create", "--ttl", "1h", "--description", "rack 7", "--groups", "system:bootstrappers:kubeadm:default-node-token,system:bootstrappers:racks")
	theirs := token(kubeadm, "create", "--ttl", "2h", "--usages", "authentication")
	signing := token(fb, "create", "--usages", "signing")
	forever := token(fb, "create", "abcdef.0123456789abcdef", "--ttl", "0")
	if forever != "abcdef.0123456789abcdef" {
		t.Errorf("the token that was given became another")
	}

	// Each lists what the other does, in the same form.
	kubeadmList, list := token(kubeadm, "list"), token(fb, "list")
	if got, want := columns(list), columns(kubeadmList); !slices.Equal(got, want) || len(got) != 6 {
		t.Errorf("firstboot lists\n%s\nkubeadm lists\n%s", list, kubeadmList)
	}
	for _, format := range []string{"json", "yaml"} {
		if got, want := objectsOf(token(fb, "list", "-o", format)), objectsOf(token(kubeadm, "list", "-o", format)); got != want {
			t.Errorf("-o %s: firstboot prints\n%s\nkubeadm prints\n%s", format, got, want)
		}
	}

	// The join commands differ in the token alone.
	a, b := token(fb, "create", "--print-join-command"), token(kubeadm, "create", "--print-join-command")
	someToken := regexp.MustCompile(`[a-z0-9]{6}\.[a-z0-9]{16}`)
	if got, want := someToken.ReplaceAllString(a, "T"), someToken.ReplaceAllString(strings.TrimSpace(b), "T"); got != want {
		t.Errorf("firstboot prints\n%s\nkubeadm prints\n%s", got, want)
	}

	// They are what they say.
	user, err := whoAmI(t, clientAs(t, c, ours))
	if err != nil || user.Username != "system:bootstrap:"+ours[:6] || !slices.Contains(user.Groups, "system:bootstrappers:racks") {
		t.Errorf("%+v, %v", user, err)
	}
	if _, err := whoAmI(t, clientAs(t, c, signing)); err == nil {
		t.Error("a token for signing alone authenticates")
	}

	// Twice the same id.
	if _, errOut, err := try(fb, "token", "create", conf, "abcdef.fedcba9876543210"); err == nil || !strings.Contains(errOut, "a token with the id abcdef already exists") {
		t.Errorf("%v: %s", err, errOut)
	}
	// Each deletes the other's.
	token(fb, "delete", theirs[:6])
	token(kubeadm, "delete", ours)
	if got := token(fb, "delete", forever); got != `bootstrap token "abcdef" deleted` {
		t.Errorf("%s", got)
	}
	if _, errOut, err := try(fb, "token", "delete", conf, "abcdef", theirs); err == nil || strings.Count(errOut, "there is no bootstrap token with the id") != 2 {
		t.Errorf("%v: %s", err, errOut)
	}
	for _, gone := range []string{ours, theirs, forever} {
		if strings.Contains(token(kubeadm, "list"), gone) {
			t.Error("a token that was deleted is still there")
		}
	}

	// And the controller manager those that have expired.
	short := token(fb, "create", "--ttl", "5s")
	if _, err := whoAmI(t, clientAs(t, c, short)); err != nil {
		t.Errorf("a token that lives for five seconds: %v", err)
	}
	eventually(t, 2*time.Minute, "the controller manager to delete the token", func() (bool, error) {
		out, errOut, err := try(fb, "token", "list", conf)
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, errOut)
		}
		return !strings.Contains(out, short[:6]), nil
	})

	// Wrong credentials.
	if _, errOut, err := try(fb, "token", "list", "--kubeconfig="+c.Paths.Kubeconfig("scheduler.conf")); err == nil || !strings.Contains(errOut, "forbidden") {
		t.Errorf("%v: %s", err, errOut)
	}
}

// columns are a token list's lines without the time that is left, sorted.
func columns(list string) []string {
	var out []string
	blanks := regexp.MustCompile(` {2,}`)
	for _, l := range strings.Split(list, "\n") {
		f := blanks.Split(strings.TrimSpace(l), -1)
		if len(f) > 1 {
			f[1] = ""
		}
		out = append(out, strings.Join(f, "|"))
	}
	slices.Sort(out)
	return out
}

// objectsOf makes the fields of printed objects comparable.
func objectsOf(text string) string {
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		l = strings.TrimRight(strings.TrimSpace(l), ",")
		if l != "" && l != "---" && !strings.HasPrefix(l, "ttl:") {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestUploadCerts: firstboot stores what real kubeadm stores, and a machine with a
// token may read it.
func TestUploadCerts(t *testing.T) {
	c := serving(t)
	fb := firstboot(t)
	conf := "--kubeconfig=" + c.Paths.Kubeconfig(kubeapi.AdminConf)
	token := c.Config.Plan.Tokens[0]
	client := clientAs(t, c, token.ID+"."+token.Secret.RevealString())
	for range 2 { // the second replaces the first
		key := must(t, fb, "certs", "upload", "--root", c.Paths.Root, conf)
		if len(strings.TrimSpace(key)) != 64 {
			t.Errorf("key %q", key)
		}
		s, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "kubeadm-certs", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Data) != 8 || len(s.Data["etcd-ca.key"]) == 0 || len(s.OwnerReferences) != 1 || !strings.HasPrefix(s.OwnerReferences[0].Name, "bootstrap-token-") {
			t.Errorf("%d files, owners %v", len(s.Data), s.OwnerReferences)
		}
	}
	if list := must(t, fb, "token", "list", conf); strings.Count(list, "Proxy for managing TTL for the kubeadm-certs secret") != 2 {
		t.Errorf("%s", list)
	}
}

// TestUserKubeconfig: the user is who the certificate says.
func TestUserKubeconfig(t *testing.T) {
	c := serving(t)
	fb := firstboot(t)
	out := must(t, fb, "kubeconfig", "user", "--root", c.Paths.Root, "--client-name", "alice", "--org", "devs,ops", "--validity-period", "1h")
	user, err := whoAmI(t, clientFrom(t, out))
	if err != nil || user.Username != "alice" || !slices.Contains(user.Groups, "devs") || !slices.Contains(user.Groups, "ops") {
		t.Errorf("%+v, %v", user, err)
	}
	token := strings.TrimSpace(must(t, fb, "token", "create", "--kubeconfig", c.Paths.Kubeconfig(kubeapi.AdminConf)))
	out = must(t, fb, "kubeconfig", "user", "--root", c.Paths.Root, "--client-name", "bot", "--token", token)
	if user, err = whoAmI(t, clientFrom(t, out)); err != nil || user.Username != "system:bootstrap:"+token[:6] {
		t.Errorf("%+v, %v", user, err)
	}
}

func clientFrom(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	rc, err := clientcmd.RESTConfigFromKubeConfig([]byte(kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestCertificates renews all certificates of a control plane that runs, and lets real
// kubeadm look at them and renew them, too.
func TestCertificates(t *testing.T) {
	c := serving(t)
	fb, kubeadm := firstboot(t), testtools.Kubeadm(t)
	admin := c.Paths.Kubeconfig(kubeapi.AdminConf)

	check := func() {
		t.Helper()
		var ours, theirs renewal.Expiration
		for program, to := range map[string]*renewal.Expiration{
			must(t, fb, "certs", "check-expiration", "--root", c.Paths.Root, "-o", "json"): &ours,
			// kubeadm looks for kubeconfigs in /etc/kubernetes alone.
			must(t, kubeadm, "certs", "check-expiration", "--cert-dir", c.Paths.PKI(), "--kubeconfig", admin, "-o", "json"): &theirs,
		} {
			if err := json.Unmarshal([]byte(program), to); err != nil {
				t.Fatalf("%v\n%s", err, program)
			}
		}
		inPKI := func(list []renewal.Expiring) (out []string) {
			for _, e := range list {
				if !strings.HasSuffix(e.Name, ".conf") {
					out = append(out, fmt.Sprintf("%s %s %v %s", e.Name, e.ExpirationDate.UTC(), e.Missing, e.CAName))
				}
			}
			return out
		}
		if got, want := inPKI(ours.Certificates), inPKI(theirs.Certificates); !slices.Equal(got, want) || len(got) != 7 {
			t.Errorf("firstboot sees\n%q\nkubeadm sees\n%q", got, want)
		}
		if got, want := inPKI(ours.Authorities), inPKI(theirs.Authorities); !slices.Equal(got, want) || len(got) != 3 {
			t.Errorf("firstboot sees\n%q\nkubeadm sees\n%q", got, want)
		}
	}
	check()
	if out := must(t, fb, "certs", "renew", "--root", c.Paths.Root, "all"); strings.Count(out, " renewed\n") != 11 {
		t.Errorf("%s", out)
	}
	check()
	servesRenewed(t, c)
	if out := must(t, kubeadm, "certs", "renew", "apiserver", "--cert-dir", c.Paths.PKI(), "--kubeconfig", admin); !strings.Contains(out, "certificate for serving the Kubernetes API renewed") {
		t.Errorf("%s", out)
	}
	check()
	servesRenewed(t, c)
	// Every renewed credential is one: the administrator's, and etcd's, which the next
	// API server starts with.
	for _, conf := range []string{"admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf"} {
		if _, err := whoAmI(t, clientOf(t, c, conf)); err != nil {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

// servesRenewed waits until the API server shows the certificate that is on the disk.
func servesRenewed(t *testing.T, c *Cluster) {
	t.Helper()
	data, err := os.ReadFile(c.Paths.PKI("apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := pki.ParseCertificate(data)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "the API server to serve with its new certificate", func() (bool, error) {
		conn, err := tls.Dial("tcp", c.Config.LocalAPIEndpoint(), &tls.Config{InsecureSkipVerify: true}) // it is compared
		if err != nil {
			return false, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Equal(want), nil
	})
}

// TestImagesAsKubeadm compares the lists of images.
func TestImagesAsKubeadm(t *testing.T) {
	fb, kubeadm := firstboot(t), testtools.Kubeadm(t)
	for _, args := range [][]string{
		{"--kubernetes-version", "v1.37.2"}, {"--kubernetes-version", "v1.36.1", "-o", "json"},
		{"--kubernetes-version", "1.37.2", "--image-repository", "registry.example.com/k8s", "-o", "yaml"},
	} {
		got := must(t, append([]string{fb, "config", "images", "list", "--root", t.TempDir()}, args...)...)
		want := must(t, append([]string{kubeadm, "config", "images", "list"}, args...)...)
		if got != want {
			t.Errorf("%q: firstboot prints\n%s\nkubeadm prints\n%s", args, got, want)
		}
	}
}

// TestRequestsAsKubeadm compares the files and the requests of certs generate-csr.
func TestRequestsAsKubeadm(t *testing.T) {
	fb, kubeadm := firstboot(t), testtools.Kubeadm(t)
	config := filepath.Join(t.TempDir(), "kubeadm.yaml")
	write(t, config, []byte(`apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
clusterName: home
controlPlaneEndpoint: api.example.org:7443
encryptionAlgorithm: ECDSA-P256
networking: {serviceSubnet: "fd00:10:96::/112,10.96.0.0/12", dnsDomain: home.example.org}
apiServer: {certSANs: [192.0.2.9, alias.example.org]}
etcd: {local: {serverCertSANs: [etcd.example.org], peerCertSANs: [192.0.2.10]}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: Kiln-1}
localAPIEndpoint: {advertiseAddress: "fd00::15", bindPort: 8443}
`))
	requests := func(program string, args ...string) map[string]string {
		dir := t.TempDir()
		must(t, append([]string{program, "certs", "generate-csr", "--config", config, "--cert-dir", filepath.Join(dir, "pki"), "--kubeconfig-dir", dir}, args...)...)
		out := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("mode %o", st.Mode().Perm())
			switch data := file(t, path); {
			case strings.HasSuffix(path, ".csr"):
				r, err := pki.ParseRequest([]byte(data))
				if err != nil {
					return err
				}
				slices.Sort(r.DNSNames)
				var ips []string
				for _, ip := range r.IPAddresses {
					ips = append(ips, ip.String())
				}
				slices.Sort(ips)
				what += fmt.Sprint(" ", r.Subject, r.DNSNames, ips, r.PublicKeyAlgorithm)
			case strings.HasSuffix(path, ".conf"):
				kc, err := clientcmd.Load([]byte(data))
				if err != nil {
					return err
				}
				c := kc.Contexts[kc.CurrentContext]
				what += fmt.Sprint(" ", kc.CurrentContext, c.Cluster, c.AuthInfo, len(kc.AuthInfos[c.AuthInfo].ClientKeyData) > 0, len(kc.AuthInfos[c.AuthInfo].ClientCertificateData))
				if filepath.Base(path) != "kubelet.conf" {
					// kubeadm's command names the shared endpoint there, kubeadm init this node's.
					what += " " + kc.Clusters[c.Cluster].Server
				}
			}
			rel, err := filepath.Rel(dir, path)
			out[rel] = what
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got, want := requests(fb, "--root", t.TempDir()), requests(kubeadm)
	if len(want) != 24 {
		t.Errorf("kubeadm makes %d files", len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: firstboot makes\n%s\nkubeadm makes\n%s", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("firstboot makes %v", slices.Sorted(maps.Keys(got)))
	}
}
