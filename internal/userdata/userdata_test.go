package userdata

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiln-os/kiln/internal/platform"
	"github.com/kiln-os/kiln/internal/testtools"
)

const config = `{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/etc/a", "contents": {"source": "data:,a"}}]}}`

func TestCheck(t *testing.T) {
	const right = "give an Ignition config of spec 3.0.0 to 3.3.0"
	for data, want := range map[string]string{
		"":     "",
		" \n":  "",
		config: "",
		"\n{ \"ignition\": {\"version\": \"3.0.0\"}}":           "",
		"#cloud-config\nusers: [secret]\n":                      "is a cloud-config for cloud-init, which",
		"#!/bin/sh\necho secret\n":                              "is a script, which",
		"#include http://secret/\n":                             "is for cloud-init, which",
		"Content-Type: multipart/mixed; boundary=secret\n":      "in several parts for cloud-init",
		"variant: fcos\nversion: 1.4.0\npasswd: secret\n":       "is a Butane config, which butane makes an Ignition config of",
		"\x1f\x8b\x08secret":                                    "is compressed with gzip",
		"<html>secret":                                          "a page of a proxy",
		"secret":                                                "is no JSON",
		"[]":                                                    "is no JSON",
		"{\n\"a\": secret}":                                     "line 2 is no JSON",
		"{":                                                     "line 1 is no JSON",
		`{"ignition": "secret"}`:                                "ignition in line 1 is of a wrong type",
		`{"ignition": {"version": 3}}`:                          "ignition.version in line 1 is of a wrong type",
		`{"secret": {}}`:                                        "JSON without ignition.version",
		`{"ignition": {}}`:                                      "JSON without ignition.version",
		`{"ignition": {"version": "secret"}}`:                   "is not one like 3.3.0",
		`{"ignition": {"version": "3.4.0"}, "secret": 1}`:       "of spec 3.4.0, which the nodes' Ignition does not read",
		`{"ignition": {"version": "3.4.0-experimental"}}`:       "is not one like 3.3.0",
		`{"ignition": {"version": "2.3.0"}}`:                    "of spec 2.3.0",
		`{"ignition": {"version": "99999999999999999999.0.0"}}`: "is not one like 3.3.0",
	} {
		err := Check([]byte(data))
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", data, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), right) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", data, err)
		}
	}
}

func TestRemote(t *testing.T) {
	for data, want := range map[string]bool{
		config: false,
		"":     false,
		`{"ignition": {"config": {"merge": [{"source": "https://example.org/a.ign"}]}}}`: true,
		`{"storage": {"files": [{"contents": {"source": "HTTP://example.org/a"}}]}}`:     true,
		`{"storage": {"files": [{"contents": {"source": "DATA:,a"}}]}}`:                  false,
		`{"storage": {"files": [{"contents": {"source": ""}}]}}`:                         false,
	} {
		if got := Remote([]byte(data)); got != want {
			t.Errorf("%s: %v", data, got)
		}
	}
}

// service answers requests, which are "METHOD path", of one platform.
func service(t *testing.T, header string, answers map[string]string) *Service {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, value, _ := strings.Cut(header, ": ")
		if r.Method == http.MethodGet && header != "" && r.Header.Get(name) != value {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch answer := answers[r.Method+" "+r.URL.RequestURI()]; answer {
		case "":
			http.NotFound(w, r)
		case "403":
			w.WriteHeader(http.StatusForbidden)
		case "429":
			w.WriteHeader(http.StatusTooManyRequests)
		case "302":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			_, _ = w.Write([]byte(answer)) // a client that is gone
		}
	}))
	t.Cleanup(s.Close)
	return &Service{URL: s.URL, Retry: 5 * time.Millisecond}
}

func TestPlatforms(t *testing.T) {
	const (
		awsToken  = "PUT /latest/api/token"
		awsData   = "GET /latest/user-data"
		azureData = "GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text"
		gcpData   = "GET /computeMetadata/v1/instance/attributes/user-data"
		osData    = "GET /openstack/latest/user_data"
	)
	packed := base64.StdEncoding.EncodeToString([]byte(config))
	for name, tc := range map[string]struct {
		platform, header string
		answers          map[string]string
		drive            string // "-": a drive without user data
		want, err        string
		offline          bool
	}{
		"AWS":                         {platform: platform.AWS, header: "X-Aws-Ec2-Metadata-Token: t", answers: map[string]string{awsToken: "t", awsData: config}, want: config},
		"AWS without tokens":          {platform: platform.AWS, answers: map[string]string{awsData: config}, want: config},
		"AWS without user data":       {platform: platform.AWS, answers: map[string]string{awsToken: "t"}},
		"AWS, service switched off":   {platform: platform.AWS, answers: map[string]string{awsToken: "403", awsData: "403"}},
		"AWS refuses":                 {platform: platform.AWS, header: "X-Aws-Ec2-Metadata-Token: t", answers: map[string]string{awsData: config}, err: "answers 401 Unauthorized"},
		"Azure":                       {platform: platform.Azure, header: "Metadata: true", answers: map[string]string{azureData: packed}, want: config},
		"Azure without user data":     {platform: platform.Azure, header: "Metadata: true"},
		"Azure with other bytes":      {platform: platform.Azure, answers: map[string]string{azureData: "{secret}"}, err: "not in Base64"},
		"GCP":                         {platform: platform.GCP, header: "Metadata-Flavor: Google", answers: map[string]string{gcpData: config}, want: config},
		"GCP without user data":       {platform: platform.GCP},
		"GCP, a script":               {platform: platform.GCP, answers: map[string]string{gcpData: "#!/bin/sh"}, err: "is a script"},
		"OpenStack, drive":            {platform: platform.OpenStack, drive: config, want: config, offline: true},
		"OpenStack, drive, no data":   {platform: platform.OpenStack, drive: "-", answers: map[string]string{osData: config}, offline: true},
		"OpenStack, drive, sources":   {platform: platform.OpenStack, drive: strings.Replace(config, "data:,a", "http://a/", 1), want: strings.Replace(config, "data:,a", "http://a/", 1)},
		"OpenStack, drive, a script":  {platform: platform.OpenStack, drive: "#!/bin/sh", err: "is a script", offline: true},
		"OpenStack, service":          {platform: platform.OpenStack, answers: map[string]string{osData: config}, want: config},
		"OpenStack without user data": {platform: platform.OpenStack},
		"OpenStack, blank":            {platform: platform.OpenStack, answers: map[string]string{osData: "\n"}},
		"PowerVS":                     {platform: platform.PowerVS, drive: config, want: config, offline: true},
		"PowerVS without user data":   {platform: platform.PowerVS, drive: "-", answers: map[string]string{osData: config}, offline: true},
		"PowerVS without a drive":     {platform: platform.PowerVS, answers: map[string]string{osData: config}, offline: true},
		"PowerVS, sources":            {platform: platform.PowerVS, drive: strings.Replace(config, "data:,a", "http://a/", 1), want: strings.Replace(config, "data:,a", "http://a/", 1)},
		"a redirection":               {platform: platform.OpenStack, answers: map[string]string{osData: "302"}, err: "answers 302 Found"},
		"too much":                    {platform: platform.OpenStack, answers: map[string]string{osData: strings.Repeat("x", maxSize+1)}, err: "more than 4 MiB"},
		"busy for too long":           {platform: platform.OpenStack, answers: map[string]string{osData: "429"}, err: "it answers 429 Too Many Requests; a cloud without that service can give machines a config drive"},
		"another platform":            {platform: "metal", err: `user data of platform "metal": Kiln knows that of aws`, offline: true},
	} {
		t.Run(name, func(t *testing.T) {
			patience := time.Minute
			if strings.HasPrefix(name, "busy") {
				patience = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			online := false
			m := Machine{
				Service: service(t, tc.header, tc.answers),
				Drive: func(file string) ([]byte, bool, error) {
					if file != "openstack/latest/user_data" {
						t.Errorf("the drive was asked for %s", file)
					}
					return []byte(strings.TrimPrefix(tc.drive, "-")), tc.drive != "", nil
				},
				Network: func(context.Context) error { online = true; return nil },
			}
			got, err := Fetch(ctx, tc.platform, m)
			if string(got) != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%.200q, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes user data: %v", err)
			}
			if online == tc.offline {
				t.Errorf("the network is on: %v", online)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	m := Machine{
		Drive:   func(string) ([]byte, bool, error) { return nil, true, broken },
		Network: func(context.Context) error { return broken },
	}
	for _, p := range []string{platform.AWS, platform.OpenStack} {
		if _, err := Fetch(t.Context(), p, m); !errors.Is(err, broken) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestServiceThatComesLate: a network takes its time, and a service may be busy.
func TestServiceThatComesLate(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(config)) // a client that is gone
	}))
	defer s.Close()
	service := &Service{URL: s.URL, Retry: time.Millisecond}
	if got, err := service.get(t.Context(), "/", nil); string(got) != config || err != nil || n != 4 {
		t.Errorf("%q, %v after %d", got, err, n)
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := service.get(ctx, "/", nil); !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a service that is gone: %v", err)
	}
}

func TestResolvConf(t *testing.T) {
	if got := ResolvConf([]byte("# private\nOPER_STATE=routable\nDNS=10.0.2.3 fe80::1 x\nNTP=1.2.3.4\n")); got != "nameserver 10.0.2.3\nnameserver fe80::1\n" {
		t.Errorf("%q", got)
	}
	if got := ResolvConf([]byte("OPER_STATE=degraded\nDNS=\n")); got != "" {
		t.Errorf("%q", got)
	}
}

func TestFileSystem(t *testing.T) {
	image := filepath.Join(t.TempDir(), "drive")
	for size, mib := range map[string]int{"12": 1, "16": 16, "32": 40} {
		if err := os.WriteFile(image, make([]byte, mib<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := testtools.Command(t, "mkfs.vfat", "-F", size, "-s", "1", "-n", "CONFIG-2", image).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.vfat: %v\n%s", err, out)
		}
		if probe(image) != "vfat" {
			t.Errorf("a config drive of FAT%s is not found", size)
		}
	}
	iso := make([]byte, 20*2048)
	copy(iso[16*2048:], "\x01CD001\x01\x00")
	copy(iso[16*2048+40:], "config-2                        ")
	if err := os.WriteFile(image, iso, 0o600); err != nil {
		t.Fatal(err)
	}
	if probe(image) != "iso9660" {
		t.Error("a config drive of ISO 9660 is not found")
	}
	for name, content := range map[string][]byte{"empty": nil, "zeros": make([]byte, 1<<20)} {
		if err := os.WriteFile(image, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := probe(image); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := probe(filepath.Join(t.TempDir(), "absent")); got != "" {
		t.Errorf("absent: %s", got)
	}
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user_data")
	if b, err := readFile(file); b != nil || err != nil {
		t.Errorf("a drive without: %q, %v", b, err)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := readFile(file); string(b) != config || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Truncate(file, maxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(file); err == nil || !strings.Contains(err.Error(), "user_data has more than 4 MiB") {
		t.Errorf("too much: %v", err)
	}
}

func TestName(t *testing.T) {
	const meta = "GET /openstack/latest/meta_data.json"
	for name, tc := range map[string]struct {
		platform, header string
		answers          map[string]string
		drive            string
		want, err        string
	}{
		"AWS":                    {platform: platform.AWS, header: "X-Aws-Ec2-Metadata-Token: t", answers: map[string]string{"PUT /latest/api/token": "t", "GET /latest/meta-data/local-hostname": "ip-10-0-0-1.ec2.internal"}, want: "ip-10-0-0-1.ec2.internal"},
		"AWS, several":           {platform: platform.AWS, answers: map[string]string{"GET /latest/meta-data/local-hostname": "a.internal b.internal\n"}, want: "a.internal"},
		"Azure":                  {platform: platform.Azure, header: "Metadata: true", answers: map[string]string{"GET /metadata/instance/compute/name?api-version=2021-01-01&format=text": "Worker-1"}, want: "worker-1"},
		"GCP":                    {platform: platform.GCP, header: "Metadata-Flavor: Google", answers: map[string]string{"GET /computeMetadata/v1/instance/name": "worker-1"}, want: "worker-1"},
		"OpenStack, service":     {platform: platform.OpenStack, answers: map[string]string{meta: `{"hostname": "worker-1.novalocal"}`}, want: "worker-1.novalocal"},
		"OpenStack, drive":       {platform: platform.OpenStack, drive: `{"hostname": "worker-2"}`, answers: map[string]string{meta: "{}"}, want: "worker-2"},
		"OpenStack, damaged":     {platform: platform.OpenStack, drive: `{`, err: "the metadata of this machine is damaged: line 1 is no JSON"},
		"OpenStack without name": {platform: platform.OpenStack, answers: map[string]string{meta: "{}"}},
		"PowerVS":                {platform: platform.PowerVS, drive: `{"hostname": "worker-3"}`, want: "worker-3"},
		"PowerVS without drive":  {platform: platform.PowerVS, answers: map[string]string{meta: `{"hostname": "worker-1"}`}},
		"none":                   {platform: platform.GCP},
		"no name":                {platform: platform.GCP, answers: map[string]string{"GET /computeMetadata/v1/instance/name": "<html>"}, err: "none of at most 63"},
		"too long":               {platform: platform.GCP, answers: map[string]string{"GET /computeMetadata/v1/instance/name": strings.Repeat("a", 64)}, err: "none of at most 63"},
	} {
		m := Machine{
			Service: service(t, tc.header, tc.answers),
			Drive:   func(string) ([]byte, bool, error) { return []byte(tc.drive), tc.drive != "", nil },
		}
		got, err := Name(t.Context(), tc.platform, m)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestNameConfig(t *testing.T) {
	for name, want := range map[string]string{
		"":    `{"ignition":{"version":"3.0.0"}}`,
		"a.b": `{"ignition":{"version":"3.0.0"},"storage":{"files":[{"path":"/etc/kiln/platform-name","mode":420,"contents":{"source":"data:,a.b%0A"}}]}}`,
	} {
		if got, err := NameConfig(name); string(got) != want || err != nil {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(config))
	f.Add([]byte("#cloud-config\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if Check(b) == nil {
			Remote(b)
		}
	})
}

func FuzzFileSystem(f *testing.F) {
	f.Add(make([]byte, 34<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		if kind, label := fileSystem(strings.NewReader(string(b))); kind == "" && label != "" {
			t.Errorf("%q", label)
		}
	})
}
