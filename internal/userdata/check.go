package userdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// newest is the last minor version of Ignition's spec 3 that the nodes' Ignition,
// Debian's 2.14, reads.
const newest = 3

// right is what would be right.
const right = "give an Ignition config of spec 3.0.0 to 3.3.0, as Butane makes it of variant fcos, version 1.4.0, or no user data at all"

// Check says what is wrong with user data that is no Ignition config of a version that
// the nodes read. No user data at all is right. What a config says is Ignition's to
// check. Errors quote nothing of the data, which may hold secrets.
func Check(data []byte) error {
	if Empty(data) {
		return nil
	}
	if what := foreign(data); what != "" {
		return fmt.Errorf("the user data of this machine is %s, which a Kiln node does not read: %s", what, right)
	}
	var config struct {
		Ignition *struct {
			Version *string `json:"version"`
		} `json:"ignition"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("the user data of this machine is no Ignition config: %s: %s", inJSON(data, err), right)
	}
	if config.Ignition == nil || config.Ignition.Version == nil {
		return fmt.Errorf("the user data of this machine is JSON without ignition.version, so it is no Ignition config: %s", right)
	}
	return checkVersion(*config.Ignition.Version)
}

var semver = regexp.MustCompile(`^(\d{1,9})\.(\d{1,9})\.\d{1,9}$`)

func checkVersion(version string) error {
	m := semver.FindStringSubmatch(version)
	if m == nil {
		return fmt.Errorf("the user data of this machine is an Ignition config whose ignition.version is not one like 3.3.0: %s", right)
	}
	major, _ := strconv.Atoi(m[1]) // at most nine digits
	minor, _ := strconv.Atoi(m[2])
	if major != 3 || minor > newest {
		return fmt.Errorf("the user data of this machine is an Ignition config of spec %s, which the nodes' Ignition does not read: %s", version, right)
	}
	return nil
}

// Empty says whether user data says nothing.
func Empty(data []byte) bool { return len(bytes.TrimSpace(data)) == 0 }

// foreign names what user data is if it is meant for another program; "" if it may be
// JSON.
func foreign(data []byte) string {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return "compressed with gzip"
	}
	text := strings.TrimSpace(string(data))
	if strings.HasPrefix(text, "{") {
		return ""
	}
	first, _, _ := strings.Cut(text, "\n")
	first = strings.TrimSpace(first)
	lower := strings.ToLower(first)
	switch {
	case strings.HasPrefix(lower, "#cloud-config"):
		return "a cloud-config for cloud-init"
	case strings.HasPrefix(lower, "#cloud-boothook"), strings.HasPrefix(lower, "#include"), strings.HasPrefix(lower, "## template:"), strings.HasPrefix(lower, "#part-handler"):
		return "for cloud-init"
	case strings.HasPrefix(first, "#!"):
		return "a script"
	case strings.HasPrefix(lower, "content-type:"), strings.HasPrefix(lower, "mime-version:"):
		return "in several parts for cloud-init"
	case strings.HasPrefix(text, "#ps1"), strings.HasPrefix(text, "<"):
		return "for another system, or a page of a proxy"
	case butane.MatchString(text):
		return "a Butane config, which butane makes an Ignition config of"
	}
	return "no JSON"
}

var butane = regexp.MustCompile(`(?m)^variant:\s*\S`)

// inJSON says where a mistake is, without quoting it.
func inJSON(data []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d is no JSON", line(data, syntax.Offset))
	case errors.As(err, &kind):
		return fmt.Sprintf("%s in line %d is of a wrong type", kind.Field, line(data, kind.Offset))
	}
	return "it is no JSON"
}

func line(data []byte, offset int64) int {
	offset = max(0, min(offset, int64(len(data))))
	return 1 + bytes.Count(data[:offset], []byte("\n"))
}

// Remote says whether a config that Check accepts names a source that is not part of
// it: Ignition needs the network then.
func Remote(config []byte) bool {
	var v any
	if Empty(config) || json.Unmarshal(config, &v) != nil {
		return false
	}
	return remote(v)
}

func remote(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if s, ok := value.(string); ok && key == "source" && s != "" && !strings.HasPrefix(strings.ToLower(s), "data:") {
				return true
			}
			if remote(value) {
				return true
			}
		}
	case []any:
		for _, value := range v {
			if remote(value) {
				return true
			}
		}
	}
	return false
}
