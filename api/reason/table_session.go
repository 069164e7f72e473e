package reason

import "slices"

// sessionReasons are the answers about the connection and the conversation,
// before any message is spoken of.
func sessionReasons() []Reason {
	return slices.Concat(connectionReasons(), commandReasons(), entitlementReasons())
}

func connectionReasons() []Reason {
	return []Reason{
		{
			Slug: TooManyConnections, Stages: []Stage{StageConnect},
			Title:       "Too many connections",
			Sentence:    "Too many connections from {client}; try again later",
			Explanation: "The client, its partner or the edge has as many connections open as it may. Mail servers come back by themselves.",
			Reply:       Code{421, Enhanced{4, 7, 0}},
			Alternatives: []Alternative{{
				When: Overloaded, Code: Code{421, Enhanced{4, 3, 2}}, Sentence: "Too many connections to this server; try again later",
			}},
			Retry: true, Scope: ScopeTenant, Exit: ExitLimit,
		},
		{
			Slug: EarlyTalker, Stages: []Stage{StageConnect},
			Title:       "Spoke before the greeting",
			Sentence:    "Wait for the greeting before sending commands",
			Explanation: "The client sent commands before the greeting, as mail servers do not. Check what program connects to the relay port.",
			Reply:       Code{421, Enhanced{4, 7, 0}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: NotSMTP, Stages: []Stage{StageConnect},
			Title:       "Not a mail client",
			Sentence:    "This port speaks SMTP only; closing the connection",
			Explanation: "The client sent HTTP or another protocol to the mail port. Check what program connects to it.",
			Reply:       Code{421, Enhanced{4, 7, 0}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: ShuttingDown, Stages: []Stage{StageConnect, StageMail},
			Title:       "Service closing",
			Sentence:    "Service is closing; try again later",
			Explanation: "The edge is being restarted. Mail servers come back by themselves.",
			Reply:       Code{421, Enhanced{4, 3, 2}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
		{
			Slug: SessionLimit, Stages: []Stage{StageMail},
			Title:       "Session used up",
			Sentence:    "This connection has done enough; open a new one",
			Explanation: "A connection may carry so many messages and last so long. The client opens a new one and goes on.",
			Reply:       Code{421, Enhanced{4, 7, 0}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitLimit,
		},
		{
			// RFC 5321 4.5.3.2.7: the server may close after its time-out.
			Slug: SessionTimeout, Stages: []Stage{StageConnect, StageData},
			Title:       "Session timed out",
			Sentence:    "Nothing was heard for too long; closing the connection",
			Explanation: "The client was silent or too slow for longer than the session allows. Check the network between client and edge.",
			Reply:       Code{421, Enhanced{4, 4, 2}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitUnavailable,
		},
		{
			Slug: TooManyErrors, Stages: []Stage{StageConnect},
			Title:       "Too many errors",
			Sentence:    "Too many errors; closing the connection",
			Explanation: "The client made more mistakes than a connection may. The replies before this one say which.",
			Reply:       Code{421, Enhanced{4, 7, 0}},
			Retry:       true, Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: RateLimited, Stages: []Stage{StageConnect, StageMail, StageRcpt, StageAPI},
			Title:       "Rate limit reached",
			Sentence:    "Rate limit reached; try again later",
			Explanation: "Too many requests or messages in a short time. Wait as long as the reply says, then go on more slowly.",
			Reply:       Code{450, Enhanced{4, 7, 1}},
			Alternatives: []Alternative{
				{When: AtConnect, Code: Code{421, Enhanced{4, 7, 0}}},
			},
			HTTPStatus: 429,
			Retry:      true, Scope: ScopeTenant, Exit: ExitLimit,
		},
	}
}

// commandReasons answer commands that cannot be carried out as they were given.
func commandReasons() []Reason {
	return []Reason{
		{
			Slug: CommandUnknown, Stages: []Stage{StageConnect},
			Title:       "Command unknown",
			Sentence:    "Command not recognised",
			Explanation: "The client sent a command that the edge does not know.",
			Reply:       Code{500, Enhanced{5, 5, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: CommandSyntax, Stages: []Stage{StageConnect, StageAuth, StageMail, StageRcpt},
			Title:       "Command not understood",
			Sentence:    "Command not understood: {detail}",
			Explanation: "The client sent a command with arguments that cannot be read.",
			Reply:       Code{501, Enhanced{5, 5, 4}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: CommandSequence, Stages: []Stage{StageConnect, StageAuth, StageMail, StageRcpt},
			Title:       "Command out of order",
			Sentence:    "Command is not allowed at this point: {detail}",
			Explanation: "The client sent a command at a point where it has no meaning, for example MAIL within a message.",
			Reply:       Code{503, Enhanced{5, 5, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: CommandNotOffered, Stages: []Stage{StageConnect},
			Title:       "Command not offered",
			Sentence:    "Command is not offered here",
			Explanation: "The client sent a command of SMTP, or of an extension, that the edge does not offer.",
			Reply:       Code{502, Enhanced{5, 5, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			// RFC 5321 4.5.3.1.9 names the 500.
			Slug: LineTooLong, Stages: []Stage{StageConnect, StageData},
			Title:       "Line too long",
			Sentence:    "Line is longer than {limit} bytes",
			Explanation: "The client sent a command line, or a message with a line, longer than the edge reads. A message can be sent encoded as base64 or quoted-printable.",
			Reply:       Code{500, Enhanced{5, 5, 2}},
			Alternatives: []Alternative{
				{
					When: InMessage, Code: Code{554, Enhanced{5, 6, 0}},
					Sentence: "Message has a line longer than {limit} bytes",
				},
				// RFC 4954 4.
				{
					When: InAuth, Code: Code{500, Enhanced{5, 5, 6}},
					Sentence: "Authentication line is longer than {limit} bytes",
				},
			},
			Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: ParameterUnknown, Stages: []Stage{StageMail, StageRcpt},
			Title:       "Parameter not supported",
			Sentence:    "Parameter is not supported: {detail}",
			Explanation: "The client used an extension that the edge did not offer.",
			Reply:       Code{555, Enhanced{5, 5, 4}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
	}
}

// entitlementReasons answer who may not speak yet.
func entitlementReasons() []Reason {
	return []Reason{
		{
			Slug: TLSRequired, Stages: []Stage{StageAuth, StageMail},
			Title:       "Encryption required",
			Sentence:    "Start TLS first",
			Explanation: "This port takes passwords and mail over TLS only. Turn on STARTTLS or TLS in the client.",
			Reply:       Code{530, Enhanced{5, 7, 0}},
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
		{
			Slug: TLSUnavailable, Stages: []Stage{StageConnect},
			Title:       "Encryption unavailable",
			Sentence:    "TLS is not available just now; try again later",
			Explanation: "The edge has no usable certificate at present. The provider has been alarmed.",
			Reply:       Code{454, Enhanced{4, 7, 0}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
		{
			Slug: AuthRequired, Stages: []Stage{StageMail},
			Title:       "Authentication required",
			Sentence:    "Authentication is required",
			Explanation: "This port takes mail from users with a password only. Turn on authentication in the client.",
			Reply:       Code{530, Enhanced{5, 7, 0}},
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
		{
			// RFC 4954 6: 535 means bad credentials and nothing else, because
			// mail programs ask for a new password when they see it.
			Slug: AuthFailed, Stages: []Stage{StageAuth},
			Title:       "Authentication failed",
			Sentence:    "User name or password is wrong",
			Explanation: "User name or password is wrong, or the user is unknown. Three failures end the connection.",
			Reply:       Code{535, Enhanced{5, 7, 8}},
			Alternatives: []Alternative{
				{
					When: BackendDown, Code: Code{454, Enhanced{4, 7, 0}},
					Sentence: "Passwords cannot be checked just now; try again later",
				},
			},
			Scope: ScopeTenant, Exit: ExitAuth,
		},
		{
			// RFC 4954 4: the answer to "*".
			Slug: AuthCancelled, Stages: []Stage{StageAuth},
			Title:       "Authentication cancelled",
			Sentence:    "Authentication was cancelled",
			Explanation: "The client broke the authentication off.",
			Reply:       Code{501, Enhanced{5, 7, 0}},
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
		{
			Slug: AuthMechanism, Stages: []Stage{StageAuth},
			Title:       "Authentication mechanism not offered",
			Sentence:    "Authentication mechanism is not offered; use PLAIN or LOGIN",
			Explanation: "The client wanted to authenticate in a way that the edge does not offer. Set the client to a normal password over TLS.",
			Reply:       Code{504, Enhanced{5, 5, 4}},
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
	}
}
