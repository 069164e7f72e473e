package setting

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

var (
	hostName = regexp.MustCompile(`^[0-9A-Za-z_]([0-9A-Za-z_.-]*[0-9A-Za-z])?$`)
	// numeric is what looks like an IPv4 address, and is no name then (RFC 1123).
	numeric = regexp.MustCompile(`^[0-9.]+$`)
)

// CheckListen says what is wrong with the value of a setting that is an address to listen on. It resolves no name.
func CheckListen(name, value string) error {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf("%s: %q is no address; want HOST:PORT, e.g. 0.0.0.0:25", name, value)
	}
	if !goodHost(host) {
		return fmt.Errorf("%s: %q: %q is neither an IP address nor a host name", name, value, host)
	}
	if !goodPort(port) {
		return fmt.Errorf("%s: %q: %q is no port; want 0 to 65535", name, value, port)
	}
	return nil
}

func goodHost(host string) bool {
	if _, err := netip.ParseAddr(host); host == "" || err == nil {
		return true
	}
	return !strings.Contains(host, ":") && !numeric.MatchString(host) && hostName.MatchString(host)
}

// goodPort also takes the name of a service, as the system knows it.
func goodPort(port string) bool {
	if _, err := strconv.ParseUint(port, 10, 16); err == nil {
		return true
	}
	found, err := net.LookupPort("tcp", port)
	return err == nil && found > 0
}
