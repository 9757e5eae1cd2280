// Package testpeer is a TLS peer whose records are in the hands of the test once the handshake is over: it can send what
// crypto/tls never sends, such as key updates, requests to renegotiate, empty records and alerts of its choice.
package testpeer

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The record types (RFC 8446, Section 5.1) and what goes into them.
const (
	Alert           = 21
	Handshake       = 22
	ApplicationData = 23

	CloseNotify = 0
)

// Peer reads and writes the records of one session.
type Peer struct {
	conn    net.Conn
	in, out half
}

// half is one direction's keys (RFC 8446, Section 7.3; RFC 5246, Section 6.3).
type half struct {
	tls12  bool
	secret []byte // of TLS 1.3
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// Client shakes hands over conn as a client of config, which it changes. The version is TLS 1.3, or TLS 1.2 where
// config.MaxVersion says so.
func Client(t testing.TB, conn net.Conn, config *tls.Config) *Peer {
	t.Helper()
	config.ClientSessionCache = nil // no tickets, which crypto/tls would have read already
	return takeOver(t, conn, config, tls.Client, "CLIENT", "SERVER")
}

// Server shakes hands over conn as a server of config, which it changes, in the version that Client would.
func Server(t testing.TB, conn net.Conn, config *tls.Config) *Peer {
	t.Helper()
	config.SessionTicketsDisabled = true
	return takeOver(t, conn, config, tls.Server, "SERVER", "CLIENT")
}

func takeOver(t testing.TB, conn net.Conn, config *tls.Config, role func(net.Conn, *tls.Config) *tls.Conn, own, other string) *Peer {
	t.Helper()
	var log bytes.Buffer
	config.KeyLogWriter = &log
	tls12 := config.MaxVersion == tls.VersionTLS12
	suites := []uint16{tls.TLS_AES_128_GCM_SHA256}
	if tls12 {
		suites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		config.CipherSuites = suites
	} else {
		config.MinVersion = tls.VersionTLS13
	}
	hello := &serverHello{Conn: conn}
	c := role(hello, config)
	require.NoError(t, c.Handshake())
	require.Contains(t, suites, c.ConnectionState().CipherSuite)
	secrets := map[string][]byte{}
	for line := range strings.Lines(log.String()) {
		words := strings.Fields(line)
		secret, err := hex.DecodeString(words[2])
		require.NoError(t, err)
		if secrets[words[0]] = secret; tls12 {
			clientRandom, err := hex.DecodeString(words[1])
			require.NoError(t, err)
			secrets = keyBlock(secret, clientRandom, hello.random())
		}
	}
	p := &Peer{conn: conn}
	if tls12 {
		p.out, p.in = newHalf12(secrets[own], secrets[own+"_IV"]), newHalf12(secrets[other], secrets[other+"_IV"])
	} else {
		p.out, p.in = newHalf(secrets[own+"_TRAFFIC_SECRET_0"]), newHalf(secrets[other+"_TRAFFIC_SECRET_0"])
	}
	return p
}

// serverHello is a connection that keeps the beginning of what the server says.
type serverHello struct {
	net.Conn
	read, written []byte
}

func (h *serverHello) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.read = append(h.read, p[:n]...)
	return n, err
}

func (h *serverHello) Write(p []byte) (int, error) {
	h.written = append(h.written, p...)
	return h.Conn.Write(p)
}

// random is the server's (RFC 5246, Section 7.4.1.3): it comes after the headers of the record and of the message, and the version.
func (h *serverHello) random() []byte {
	const headers, version, serverHelloType = 5 + 4, 2, 2
	from := h.read
	if h.written[5] == serverHelloType {
		from = h.written
	}
	return from[headers+version:][:32]
}

// keyBlock is what TLS 1.2 makes of the master secret for AES_128_GCM (RFC 5246, Section 6.3; RFC 5288, Section 3).
func keyBlock(master, clientRandom, serverRandom []byte) map[string][]byte {
	seed := append(append([]byte("key expansion"), serverRandom...), clientRandom...)
	mac := func(data ...[]byte) []byte {
		h := hmac.New(sha256.New, master)
		for _, d := range data {
			h.Write(d)
		}
		return h.Sum(nil)
	}
	var block []byte
	for a := mac(seed); len(block) < 16+16+4+4; a = mac(a) {
		block = append(block, mac(a, seed)...)
	}
	return map[string][]byte{"CLIENT": block[:16], "SERVER": block[16:32], "CLIENT_IV": block[32:36], "SERVER_IV": block[36:40]}
}

// newHalf12 is one direction after its Finished message, which was its record 0.
func newHalf12(key, iv []byte) half { return half{tls12: true, aead: newGCM(key), iv: iv, seq: 1} }

func newHalf(secret []byte) half {
	return half{secret: secret, aead: newGCM(expand(secret, "key", 16)), iv: expand(secret, "iv", 12)}
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446, Section 7.1).
func expand(secret []byte, label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic(err)
	}
	return out
}

// next is the nonce of the next record, and the eight bytes of it that TLS 1.2 sends along (RFC 8446, Section 5.3;
// RFC 5288, Section 3).
func (h *half) next() (nonce, explicit []byte) {
	explicit = binary.BigEndian.AppendUint64(nil, h.seq)
	h.seq++
	if h.tls12 {
		return append(bytes.Clone(h.iv), explicit...), explicit
	}
	nonce = bytes.Clone(h.iv)
	for i, b := range explicit {
		nonce[4+i] ^= b
	}
	return nonce, nil
}

// seal makes a record.
func (h *half) seal(kind byte, data []byte) []byte {
	header := []byte{ApplicationData, 3, 3, 0, 0}
	if h.tls12 {
		header[0] = kind
		nonce, explicit := h.next()
		binary.BigEndian.PutUint16(header[3:], uint16(len(explicit)+len(data)+h.aead.Overhead()))
		return h.aead.Seal(append(header, explicit...), nonce, data, additional(explicit, kind, len(data)))
	}
	plain := append(bytes.Clone(data), kind)
	binary.BigEndian.PutUint16(header[3:], uint16(len(plain)+h.aead.Overhead()))
	nonce, _ := h.next()
	return h.aead.Seal(header, nonce, plain, header)
}

// open takes a record apart.
func (h *half) open(header, body []byte) (kind byte, data []byte, err error) {
	nonce, seq := h.next()
	if h.tls12 {
		explicit := body[:8] // the sender's choice, and not always the sequence number
		nonce = append(bytes.Clone(h.iv), explicit...)
		body = body[8:]
		data, err = h.aead.Open(nil, nonce, body, additional(seq, header[0], len(body)-h.aead.Overhead()))
		return header[0], data, err
	}
	plain, err := h.aead.Open(nil, nonce, body, header)
	if err != nil {
		return 0, nil, err
	}
	plain = bytes.TrimRight(plain, "\x00")
	return plain[len(plain)-1], plain[:len(plain)-1], nil
}

// additional is what TLS 1.2 authenticates besides the data (RFC 5246, Section 6.2.3.3).
func additional(seq []byte, kind byte, length int) []byte {
	return binary.BigEndian.AppendUint16(append(bytes.Clone(seq), kind, 3, 3), uint16(length))
}

// update moves on to the next keys (RFC 8446, Section 7.2).
func (h *half) update() { *h = newHalf(expand(h.secret, "traffic upd", 32)) }

// Seal makes a record without sending it.
func (p *Peer) Seal(kind byte, data []byte) []byte { return p.out.seal(kind, data) }

// Write sends a record.
func (p *Peer) Write(kind byte, data []byte) error {
	_, err := p.conn.Write(p.Seal(kind, data))
	return err
}

// KeyUpdate makes the record that changes this side's keys in TLS 1.3, without sending it; request asks the other side to change its
// own (RFC 8446, Section 4.6.3).
func (p *Peer) KeyUpdate(request bool) []byte {
	message := []byte{24, 0, 0, 1, 0}
	if request {
		message[4] = 1
	}
	record := p.Seal(Handshake, message)
	p.out.update()
	return record
}

// SendKeyUpdate sends it.
func (p *Peer) SendKeyUpdate(request bool) error {
	_, err := p.conn.Write(p.KeyUpdate(request))
	return err
}

// Read returns the next record. It follows the other side's key updates.
func (p *Peer) Read() (kind byte, data []byte, err error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(p.conn, header); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(p.conn, body); err != nil {
		return 0, nil, err
	}
	if kind, data, err = p.in.open(header, body); err != nil {
		return 0, nil, fmt.Errorf("record %d: %w", p.in.seq-1, err)
	}
	if !p.in.tls12 && kind == Handshake && len(data) == 5 && data[0] == 24 {
		p.in.update()
	}
	return kind, data, nil
}
