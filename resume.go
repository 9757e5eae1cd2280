package sslstream

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file answers which sessions may be resumed. crypto/tls would resume a session under another server name, another
// application protocol or weaker demands than it was made with, and forgets which certificate this side showed. So a
// session carries a note of that (tls.SessionState.Extra), and one whose note does not fit is not taken: a full handshake
// follows.

// ticketKeys encrypts a server's session tickets (RFC 5077, RFC 8446 Section 4.6.1). crypto/tls makes and rotates keys in
// a tls.Config, unless it is given some; the one here is used for nothing else. The zero value is ready to use.
type ticketKeys struct {
	mu     sync.Mutex
	config *tls.Config
	given  [][32]byte // by the user
}

// keeper is the config that holds the keys.
func (k *ticketKeys) keeper() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil {
		k.config = &tls.Config{}
	}
	return k.config
}

// adopt takes the keys that a user's config may have. It must come before the first ticket.
func (k *ticketKeys) adopt(config *tls.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil {
		k.config = config
	}
}

// set replaces the keys, newest first. It may be called while they are in use.
func (k *ticketKeys) set(keys [][32]byte) error {
	if len(keys) == 0 {
		return errors.New("sslstream: SetSessionTicketKeys needs at least one key")
	}
	if slices.Contains(keys, [32]byte{}) {
		return errors.New("sslstream: a session-ticket key is all zeros; make each with crypto/rand")
	}
	k.keeper().SetSessionTicketKeys(keys)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.given = slices.Clone(keys)
	return nil
}

// areGiven reports whether the user gave keys.
func (k *ticketKeys) areGiven() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.given != nil
}

// copyTo gives another keeper the same keys, if they were given.
func (k *ticketKeys) copyTo(other *ticketKeys) {
	k.mu.Lock()
	given := k.given
	k.mu.Unlock()
	if given != nil {
		other.set(given)
	}
}

// sessionNote is what a session carries beyond what crypto/tls puts into it.
type sessionNote struct {
	server bool              // whose session it is
	bound  [sha256.Size]byte // hash of all that must be the same again
	peer   bool              // the peer showed a certificate
	until  int64             // Unix time of the first expiry to come in the peer's chain, or of what says that it is not revoked; 0: none
	local  certificateID     // what this side showed; zero: nothing
}

// noteMark begins every note, so that it is told from what others put into a session; it ends with a version.
var noteMark = []byte("sslstream session note 2\x00")

func (n sessionNote) marshal() []byte {
	flags := byte(0)
	if n.server {
		flags |= 1
	}
	if n.peer {
		flags |= 2
	}
	return slices.Concat(noteMark, []byte{flags}, binary.BigEndian.AppendUint64(nil, uint64(n.until)), n.bound[:], n.local[:])
}

// outlived reports whether something in the peer's chain has expired since the session was made. The session would bring
// the same chain again, to be refused, while in a full handshake the peer shows what it has renewed.
func (n sessionNote) outlived(now time.Time) bool {
	return n.until != 0 && now.After(time.Unix(n.until, 0))
}

// expiry is what a note says of the peer's chain. What was expired already was let in all the same.
func expiry(chain *Chain, now time.Time) (until int64) {
	if chain == nil {
		return 0
	}
	for _, e := range chain.Elements {
		if at := e.Certificate.NotAfter; !now.After(at) && (until == 0 || at.Unix() < until) {
			until = at.Unix()
		}
	}
	return until
}

// noteIn finds the note among a session's extras.
func noteIn(extra [][]byte) (n sessionNote, ok bool) {
	for _, e := range extra {
		rest, found := bytes.CutPrefix(e, noteMark)
		if !found || len(rest) != 1+8+len(n.bound)+len(n.local) {
			continue
		}
		n.server, n.peer = rest[0]&1 != 0, rest[0]&2 != 0
		n.until = int64(binary.BigEndian.Uint64(rest[1:]))
		copy(n.bound[:], rest[1+8:])
		copy(n.local[:], rest[1+8+len(n.bound):])
		return n, true
	}
	return n, false
}

// binding hashes words so that no two different lists have the same hash.
func binding(words ...string) [sha256.Size]byte {
	all := make([]byte, 0, 256)
	for _, w := range words {
		all = binary.BigEndian.AppendUint32(all, uint32(len(w)))
		all = append(all, w...)
	}
	return sha256.Sum256(all)
}

// wrapSession makes a server's ticket.
func (a *authentication) wrapSession(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
	note := sessionNote{server: true, bound: a.bound(cs), peer: len(cs.PeerCertificates) > 0, until: a.expiry(), local: idOf(a.own())}
	ss.Extra = append(ss.Extra, note.marshal())
	return a.settings.ticketKeeper().EncryptTicket(cs, ss)
}

// unwrapSession opens a ticket that a client presents. What cannot be resumed is no session, and no error.
func (a *authentication) unwrapSession(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	ss, err := a.settings.ticketKeeper().DecryptTicket(ticket, cs)
	if ss == nil || err != nil {
		return nil, nil
	}
	note, ok := noteIn(ss.Extra)
	if !ok || !note.server || note.bound != a.bound(cs) || note.outlived(a.settings.moment()) {
		return nil, nil
	}
	if a.settings.certificateRequired && !note.peer {
		return nil, nil
	}
	own, err := a.serverCertificate(a.hello.Info)
	if err != nil || idOf(own.Leaf) != note.local {
		return nil, nil
	}
	a.until = note.until
	return ss, nil
}

// expiry is that of the chain that this handshake has verified, or of the session that it resumes: a TLS 1.3 server that
// asks for no certificate makes its ticket before it verifies.
func (a *authentication) expiry() int64 {
	if r := a.stream.session.Load(); r != nil {
		until := expiry(r.chain, a.settings.moment())
		if good := r.goodUntil.Unix(); !r.goodUntil.IsZero() && (until == 0 || good < until) {
			until = good
		}
		return until
	}
	return a.until
}

// bound is what a server's session is bound to.
func (a *authentication) bound(cs tls.ConnectionState) [sha256.Size]byte {
	return binding(strings.ToLower(a.hello.Info.ServerName), cs.NegotiatedProtocol, strconv.FormatUint(uint64(a.versions.allowed), 10), a.settings.demands)
}

// clientSessions is the tls.ClientSessionCache of one authentication. crypto/tls files sessions under the server's name
// alone; here the key names all that must be the same again, so that one cache can serve any options.
type clientSessions struct {
	authentication *authentication
	cache          tls.ClientSessionCache
	key            string
}

// Get returns the session that may be resumed. The note is checked although the key says the same: the cache may be the
// user's.
func (c *clientSessions) Get(string) (*tls.ClientSessionState, bool) {
	cs, ok := c.cache.Get(c.key)
	if !ok || cs == nil {
		return nil, false
	}
	_, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return nil, false
	}
	note, ok := noteIn(state.Extra)
	if !ok || note.server || note.bound != binding(c.key) || note.outlived(c.authentication.settings.moment()) {
		return nil, false
	}
	c.authentication.offered = nil
	if note.local != (certificateID{}) {
		for _, own := range c.authentication.settings.client.fixed() {
			if idOf(own.Leaf) == note.local {
				c.authentication.offered = own.Leaf
			}
		}
		if c.authentication.offered == nil {
			return nil, false
		}
	}
	return cs, true
}

// Put files a session, or forgets the one there is. A session with a certificate that the user chose when asked is not
// kept: the user would not be asked again.
func (c *clientSessions) Put(_ string, cs *tls.ClientSessionState) {
	if cs == nil {
		c.cache.Put(c.key, nil)
		return
	}
	a := c.authentication
	if a.chosen {
		return
	}
	_, state, err := cs.ResumptionState()
	if err != nil || state == nil {
		return
	}
	note := sessionNote{bound: binding(c.key), until: a.expiry(), local: idOf(a.own())}
	state.Extra = append(state.Extra, note.marshal())
	c.cache.Put(c.key, cs)
}

// forget drops the session that the server refused after the handshake.
func (c *clientSessions) forget() {
	if c != nil {
		c.cache.Put(c.key, nil)
	}
}
