package sslstream

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// targetHost is the server that a client means: as given, and in the form that goes on the wire and is held
// against the certificate.
type targetHost struct {
	given string
	ascii string // a DNS name without trailing dots, or an IP address without zone; "" where none was given
}

// parseTargetHost checks a target host: a DNS name, international ones included (RFC 5891), or an IP address,
// in brackets or not. It is empty where the caller names none.
func parseTargetHost(given string) (targetHost, error) {
	h := targetHost{given: given}
	if given == "" {
		return h, nil
	}
	if strings.Contains(given, "://") {
		return h, fmt.Errorf("sslstream: target host %q is a URL; give the host alone", given)
	}
	address := given
	if strings.HasPrefix(given, "[") && strings.HasSuffix(given, "]") {
		address = given[1 : len(given)-1]
	}
	if ip, err := netip.ParseAddr(address); err == nil {
		h.ascii = ip.WithZone("").String()
		return h, nil
	}
	if host, _, err := net.SplitHostPort(given); err == nil {
		return h, fmt.Errorf("sslstream: target host %q has a port; give the host %q alone", given, host)
	}

	name := given
	if !isHostASCII(name) {
		// Lookup is the profile that browsers use (UTS 46, non-transitional).
		var err error
		if name, err = idna.Lookup.ToASCII(name); err != nil {
			return h, fmt.Errorf("sslstream: target host %q is not a valid name: %w", given, err)
		}
	}
	name = strings.TrimRight(name, ".")
	labels := strings.Split(name, ".")
	switch tooLong, last := len(name) > 253, labels[len(labels)-1]; {
	case name == "":
		return h, fmt.Errorf("sslstream: target host %q has no name in it", given)
	case !isHostASCII(name):
		return h, fmt.Errorf("sslstream: target host %q is not a valid name", given)
	case tooLong:
		return h, fmt.Errorf("sslstream: target host %q is longer than the 253 octets that a DNS name may have", given)
	case strings.Trim(last, "0123456789") == "":
		return h, fmt.Errorf("sslstream: target host %q looks like an IP address but is none", given)
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 {
			return h, fmt.Errorf("sslstream: target host %q is not a valid name: a label must have 1 to 63 octets", given)
		}
	}
	h.ascii = name
	return h, nil
}

// isHostASCII reports whether name has only letters, digits, hyphens, dots, and the underscores that names
// outside the public DNS often have. Such a name is not put through IDNA, which would refuse some that are in use.
func isHostASCII(name string) bool {
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// verify is nil where the certificate is for the host. No host matches nothing.
func (h targetHost) verify(cert *x509.Certificate) error {
	if h.ascii == "" {
		return x509.HostnameError{Certificate: cert, Host: h.given}
	}
	return cert.VerifyHostname(h.ascii)
}

// same reports whether two hosts are the same server, however they are written.
func (h targetHost) same(other targetHost) bool { return strings.EqualFold(h.ascii, other.ascii) }

// decodeServerName is a server name as people write it: punycode is decoded, and what does not decode stays as
// it was sent.
func decodeServerName(sent string) string {
	if !strings.Contains(strings.ToLower(sent), "xn--") {
		return sent
	}
	name, err := idna.Lookup.ToUnicode(sent)
	if err != nil {
		return sent
	}
	// idna decodes "xn--" to nothing, by which a name would look like another, or like none.
	if again, err := idna.Lookup.ToASCII(name); err != nil || !strings.EqualFold(again, sent) {
		return sent
	}
	return name
}
