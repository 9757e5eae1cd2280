package main

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// config is what the runner's flags say for one connection: each flag with its values, of which a switch has one that is empty.
type config map[string][]string

func (c config) is(name string) bool { return len(c[name]) > 0 }

// text is a flag's value, "" where it is not given.
func (c config) text(name string) string {
	if v := c[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (c config) number(name string) (int, error) {
	if !c.is(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(c.text(name))
	if err != nil {
		return 0, fmt.Errorf("-%s: %w", name, err)
	}
	return n, nil
}

func (c config) numbers(name string) (all []int, err error) {
	for _, v := range c[name] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", name, err)
		}
		all = append(all, n)
	}
	return all, nil
}

func (c config) bytes(name string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(c.text(name))
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", name, err)
	}
	return b, nil
}

// switches are the flags without a value that the shim does something about. What it does nothing about it does not accept, unless moot
// says why that is right: a test whose flag is ignored would count as passed.
const switches = `server ipv6 require-any-client-certificate verify-peer verify-fail expect-verify-result reverify-on-resume
no-tls1 no-tls11 no-tls12 no-tls13 no-ticket shim-writes-first shim-shuts-down check-close-notify write-different-record-sizes
decline-alpn reject-alpn expect-session-miss expect-no-session expect-extended-master-secret use-export-context tls-unique
renegotiate-freely renegotiate-once expect-hrr expect-no-hrr use-exporter-between-reads is-handshaker-supported
expect-ech-accept expect-no-ech-retry-configs use-old-client-cert-callback handshake-never-done fail-cert-callback
fail-early-callback decline-ocsp-callback fail-ocsp-callback async`

// valued are those with one.
const valued = `port shim-id key-file cert-file signing-prefs min-version max-version expect-version resume-count
host-name expect-server-name advertise-alpn expect-alpn expect-advertised-alpn select-alpn curves expect-curve-id cipher
export-keying-material export-label export-context read-size expect-ocsp-response ocsp-response signed-cert-timestamps
expect-signed-cert-timestamps ech-config-list ech-server-config ech-server-key ech-is-retry-config
expect-ech-retry-configs expect-peer-cert-file resumption-delay expect-total-renegotiations`

// moot are the flags that ask for what is done without them too, and why.
var moot = []struct {
	name   string
	value  bool
	reason string
}{
	{"enable-ocsp-stapling", false, "crypto/tls's clients always ask for a staple"},
	{"enable-signed-cert-timestamps", false, "crypto/tls's clients always ask for timestamps"},
	{"server-preference", false, "crypto/tls's servers always go by their own order of suites"},
	{"trust-cert", true, "judge lets every certificate in, so that it need not be told which are good"},
	{"use-custom-verify-callback", false, "a RemoteCertificateValidationCallback always has the last word, which is what BoringSSL's custom callback has"},
	{"use-early-callback", false, "the ServerCertificateSelectionCallback picks the certificate by the ClientHello, which is as early as BoringSSL's callback"},
	{"use-ocsp-callback", false, "the callbacks that pick and judge certificates do so with their staples, and are always there"},
	{"set-ocsp-in-callback", false, "the staple always comes with the certificate that a callback picks"},
}

// unimplemented is what the runner is told by the exit code 89.
type unimplemented string

func (u unimplemented) Error() string { return string(u) + " is not implemented" }

// parse reads the arguments into what holds for all connections, the first, and those that resume it.
func parse(args []string) (all, initial, resumed config, err error) {
	kinds := map[string]bool{}
	for _, name := range strings.Fields(switches) {
		kinds[name] = false
	}
	for _, name := range strings.Fields(valued) {
		kinds[name] = true
	}
	for _, m := range moot {
		kinds[m.name] = m.value
	}
	all, initial, resumed = config{}, config{}, config{}
	for i := 0; i < len(args); i++ {
		name, of := strings.TrimPrefix(args[i], "-"), []config{initial, resumed}
		if rest, ok := strings.CutPrefix(name, "on-initial-"); ok {
			name, of = rest, of[:1]
		} else if rest, ok := strings.CutPrefix(name, "on-resume-"); ok {
			name, of = rest, of[1:]
		}
		if rest, ok := strings.CutPrefix(name, "on-shim-"); ok {
			name = rest
		}
		hasValue, known := kinds[name]
		if !known {
			return nil, nil, nil, unimplemented("-" + name)
		}
		value := ""
		if hasValue {
			if i++; i == len(args) {
				return nil, nil, nil, fmt.Errorf("-%s has no value", name)
			}
			value = args[i]
		}
		for _, c := range of {
			c[name] = append(c[name], value)
		}
		all[name] = append(all[name], value)
	}
	return all, initial, resumed, nil
}
