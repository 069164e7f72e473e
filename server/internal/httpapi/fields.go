package httpapi

import (
	"strconv"
	"time"

	"github.com/oapi-codegen/nullable"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/server/internal/store"
)

// optional is a property that is left out when it is empty.
func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}

// text is the value of an optional property, empty when it is absent.
func text[T ~string](value *T) string {
	if value == nil {
		return ""
	}
	return string(*value)
}

// nullableText returns the value that a merge patch gives a property, empty for null, and whether it names it at all.
func nullableText(value nullable.Nullable[string]) (string, bool) {
	if !value.IsSpecified() {
		return "", false
	}
	given, err := value.Get()
	if err != nil { // null
		return "", true
	}
	return given, true
}

// timeZone checks that a name is one of the IANA database. Empty inherits and is always right; "Local" would mean the
// zone of whichever host looks.
func timeZone(pointer, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		return "", invalid(pointer, "time_zone", "is not a name of the IANA time zone database, e.g. Europe/Berlin")
	}
	return name, nil
}

// domainName returns the canonical form of a domain name.
func domainName(pointer, name string) (string, error) {
	canonical, err := mailaddr.ParseDomain(name)
	if err != nil {
		return "", invalid(pointer, "domain", "is not a domain name: "+err.Error())
	}
	return canonical, nil
}

func relayingToAPI(r store.Relaying) api.Relaying {
	shown := api.Relaying{State: api.RelayingState(r.State), Reason: optional(r.Reason), Since: r.Since}
	if r.Cause != "" {
		cause := api.RelayingCause(r.Cause)
		shown.Cause = &cause
	}
	return shown
}

// storedTime is an instant of a request as the store keeps it.
func storedTime(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	kept := t.UTC().Truncate(time.Microsecond)
	return &kept
}

// indexed is the pointer to an item of a list.
func indexed(pointer string, i int) string { return pointer + "/" + strconv.Itoa(i) }
