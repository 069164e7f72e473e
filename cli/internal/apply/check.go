package apply

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones for machines that have none: the server has them all

	"activerelay/api/mailaddr"
	"activerelay/cli/internal/ops"
)

// field is what the contract says of a property of this kind: the words of the
// change where it has one, else those of the creation.
func (k *kind) field(table []ops.Op, key string) (ops.Field, bool) {
	var found ops.Field
	known := false
	for _, id := range []string{k.create, k.update} {
		for _, op := range table {
			if op.ID != id || op.Body == nil {
				continue
			}
			for _, p := range op.Body.Properties {
				if len(p.Path) == 1 && p.Path[0] == key {
					nullable := found.Nullable || p.Nullable
					found, known = p.Field, true
					found.Nullable = nullable
				}
			}
		}
	}
	return found, known
}

func (k *kind) secret(table []ops.Op, key string) bool {
	field, _ := k.field(table, key)
	return field.Secret
}

// check says what a property takes, empty where the value is of that.
func (k *kind) check(table []ops.Op, key string, value any) string {
	field, known := k.field(table, key)
	if !known {
		field = ops.Field{Kind: ops.String, Nullable: true}
		if key == "status" {
			field.Enum = []string{"active", "suspended"}
		}
		if key == "state" {
			field.Enum = []string{"requested", "active", "disabled"}
		}
	}
	if value == nil {
		if field.Nullable {
			return ""
		}
		return "a value, and cannot be cleared"
	}
	if wants := fits(field, field.Kind, value); wants != "" {
		return wants
	}
	return meaning(k, key, value)
}

// fits compares a value with the type, the choices and the bounds of a field.
func fits(f ops.Field, kind ops.Kind, value any) string {
	switch kind {
	case ops.List:
		list, ok := value.([]any)
		if !ok {
			return "a list"
		}
		for _, element := range list {
			if wants := fits(f, f.Item, element); wants != "" {
				return "a list of which each is " + wants
			}
		}
	case ops.Map:
		if _, ok := value.(map[string]any); !ok {
			return "a mapping of names to values"
		}
	case ops.Integer, ops.Number:
		return fitsNumber(f, kind, value)
	case ops.Boolean:
		if _, ok := value.(bool); !ok {
			return "true or false"
		}
	case ops.String:
		return fitsText(f, value)
	}
	return ""
}

func fitsNumber(f ops.Field, kind ops.Kind, value any) string {
	wants := "a number"
	if kind == ops.Integer {
		wants = "a whole number"
	}
	text, _ := value.(json.Number)
	number, ok := new(big.Rat).SetString(string(text))
	switch {
	case !ok || kind == ops.Integer && !number.IsInt():
		return wants
	case beyond(number, f.Minimum, -1):
		return wants + " of at least " + f.Minimum
	case beyond(number, f.Maximum, 1):
		return wants + " of at most " + f.Maximum
	}
	return ""
}

// beyond says whether the number lies on that side of the bound.
func beyond(number *big.Rat, bound string, side int) bool {
	limit, ok := new(big.Rat).SetString(bound)
	return ok && number.Cmp(limit) == side
}

func fitsText(f ops.Field, value any) string {
	text, ok := value.(string)
	if !ok {
		return "a text"
	}
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, text) {
		return "one of " + strings.Join(f.Enum, ", ")
	}
	if f.Format == "date-time" {
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return "an instant such as 2026-11-22T15:04:05Z"
		}
	}
	return ""
}

// meaning checks what the contract says in words only.
func meaning(k *kind, key string, value any) string {
	text, _ := value.(string)
	switch {
	case key == "time_zone":
		if _, err := time.LoadLocation(text); err != nil || text == "" || text == "Local" {
			return "a name of the IANA time zone database such as Europe/Berlin"
		}
	case key == "address" && k.name == "relay_ip":
		_, notAddress := netip.ParseAddr(text)
		if _, notPrefix := netip.ParsePrefix(text); notAddress != nil && notPrefix != nil {
			return "an IP address or a prefix such as 192.0.2.0/28"
		}
	case key == "address":
		return mailbox(text)
	case key == "contacts", key == "aliases":
		list, _ := value.([]any)
		for _, element := range list {
			one, _ := element.(string)
			if wants := mailbox(one); wants != "" {
				return "a list of which each is " + wants + fmt.Sprintf(" (%q is none)", one)
			}
		}
	case key == "domain", key == "recipient_domain", key == "name" && k.name == "domain":
		if _, err := mailaddr.ParseDomain(text); err != nil {
			return "a domain name such as example.com"
		}
	}
	return ""
}

func mailbox(text string) string {
	if _, err := mailaddr.Parse(text, mailaddr.Options{SMTPUTF8: true}); err != nil {
		return "an address such as anna@example.com"
	}
	return ""
}
