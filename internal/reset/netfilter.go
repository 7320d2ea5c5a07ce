package reset

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ownTables are nftables tables that belong to Kubernetes as a whole: of kube-proxy's
// mode nftables, of flannel and of the CNI plugins.
var ownTables = []string{"kube-proxy", "flannel-ipv4", "flannel-ipv6", "cni_hostport", "cni_plugins_masquerade"}

// ownChains begin the names of chains that kube-proxy, the kubelet, flannel and the
// CNI plugins make in tables that others use too.
var ownChains = []string{"KUBE-", "FLANNEL-", "CNI-"}

// ruleset is the part of nft -j list ruleset (libnftables-json(5)) that is needed.
type ruleset struct {
	Objects []struct {
		Table *struct{ Family, Name string }
		Chain *struct{ Family, Table, Name string }
		Rule  *struct {
			Family, Table, Chain string
			Handle               int
			Comment              string
			Expr                 []map[string]json.RawMessage
		}
	} `json:"nftables"`
}

// netfilterScript returns the commands for nft -f, one transaction, that remove from a
// ruleset what Kubernetes has put there, and only that; "" if there is nothing.
func netfilterScript(listing []byte) (string, error) {
	var rs ruleset
	if err := json.Unmarshal(listing, &rs); err != nil {
		return "", errors.New("nft -j list ruleset: the answer is no JSON")
	}
	var tables, rules, flush, chains []string
	for _, o := range rs.Objects {
		switch {
		case o.Table != nil && slices.Contains(ownTables, o.Table.Name):
			if err := plain(o.Table.Family, o.Table.Name); err != nil {
				return "", err
			}
			tables = append(tables, fmt.Sprintf("delete table %s %s", o.Table.Family, o.Table.Name))
		case o.Chain != nil && isOwnChain(o.Chain.Name) && !slices.Contains(ownTables, o.Chain.Table):
			if err := plain(o.Chain.Family, o.Chain.Table, o.Chain.Name); err != nil {
				return "", err
			}
			at := fmt.Sprintf("chain %s %s %s", o.Chain.Family, o.Chain.Table, o.Chain.Name)
			flush, chains = append(flush, "flush "+at), append(chains, "delete "+at)
		case o.Rule != nil && !isOwnChain(o.Rule.Chain) && !slices.Contains(ownTables, o.Rule.Table):
			own, err := leadsToOwn(o.Rule.Expr)
			if err == nil && own {
				err = plain(o.Rule.Family, o.Rule.Table, o.Rule.Chain)
			}
			if err != nil {
				return "", err
			}
			if own {
				rules = append(rules, fmt.Sprintf("delete rule %s %s %s handle %d", o.Rule.Family, o.Rule.Table, o.Rule.Chain, o.Rule.Handle))
			}
		}
	}
	// The rules that lead there first, then what is inside, then the chains.
	all := slices.Concat(tables, rules, flush, chains)
	if len(all) == 0 {
		return "", nil
	}
	return strings.Join(all, "\n") + "\n", nil
}

func isOwnChain(name string) bool {
	return slices.ContainsFunc(ownChains, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// leadsToOwn reports whether a rule jumps or goes to a chain of Kubernetes.
func leadsToOwn(expr []map[string]json.RawMessage) (bool, error) {
	for _, e := range expr {
		for _, verb := range []string{"jump", "goto"} {
			raw, ok := e[verb]
			if !ok {
				continue
			}
			var to struct{ Target string }
			if err := json.Unmarshal(raw, &to); err != nil {
				return false, fmt.Errorf("nft -j list ruleset: a %s without a target", verb)
			}
			if isOwnChain(to.Target) {
				return true, nil
			}
		}
	}
	return false, nil
}

// plain refuses names that would not be one word of an nft command.
func plain(words ...string) error {
	for _, w := range words {
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
			return fmt.Errorf("nft -j list ruleset: the name %q is not one that Kubernetes gives", w)
		}
	}
	return nil
}
