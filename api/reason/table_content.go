package reason

// contentReasons are given after the final dot: they need the whole message.
func contentReasons() []Reason {
	return append(formReasons(), verdictReasons()...)
}

func formReasons() []Reason {
	return []Reason{
		{
			Slug: MessageTooLarge, Stages: []Stage{StageMail, StageData},
			Title:       "Message too large",
			Sentence:    "Message is larger than the {limit} bytes allowed",
			Explanation: "The message is larger than the platform allows. Send a link in place of the attachment.",
			Reply:       Code{552, Enhanced{5, 3, 4}},
			Scope:       ScopeTenant, Exit: ExitLimit,
		},
		{
			Slug: BareNewline, Stages: []Stage{StageData},
			Title:       "Broken line ends",
			Sentence:    "Message has line ends other than CR LF",
			Explanation: "The message holds bare CR, bare LF or NUL, which mail must not (RFC 5321 2.3.8) and which can smuggle a second message. Correct the sending program.",
			Reply:       Code{550, Enhanced{5, 5, 2}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: BadHeader, Stages: []Stage{StageData},
			Title:       "Message header not accepted",
			Sentence:    "Message header not accepted: {detail}",
			Explanation: "The header of the message cannot be read without doubt; most often the From field is missing, doubled, or names several addresses.",
			Reply:       Code{550, Enhanced{5, 6, 0}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: RoutingLoop, Stages: []Stage{StageData},
			Title:       "Mail loop",
			Sentence:    "Message has passed too many servers; it is in a loop",
			Explanation: "The message carries 30 or more Received fields: it goes round in a circle. Check forwarding and routes.",
			Reply:       Code{554, Enhanced{5, 4, 6}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
	}
}

func verdictReasons() []Reason {
	return []Reason{
		{
			Slug: Malware, Stages: []Stage{StageData},
			Title:       "Malware found",
			Sentence:    "Message refused: malware found ({signature})",
			Explanation: "The scanner found malware in the message. Clean the computer that sent it.",
			Reply:       Code{554, Enhanced{5, 7, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: Spam, Stages: []Stage{StageData},
			Title:       "Spam",
			Sentence:    "Message refused as spam",
			Explanation: "The message was classified as spam.",
			Reply:       Code{554, Enhanced{5, 7, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: Bulk, Stages: []Stage{StageData},
			Title:       "Bulk mail",
			Sentence:    "Newsletters and bulk mail are not relayed",
			Explanation: "The message carries the marks of a newsletter or mailing, or has too many recipients. The relay is for the mail of people; use a service for mailings, or ask the provider for an exception.",
			Reply:       Code{550, Enhanced{5, 7, 1}},
			Alternatives: []Alternative{
				{When: FirstBurst, Code: Code{450, Enhanced{4, 7, 1}}},
			},
			Scope: ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: ContentRule, Stages: []Stage{StageData},
			Title:       "Content rule",
			Sentence:    `Message refused by rule "{rule}"`,
			Explanation: "A rule of the platform, the partner or the domain refuses the content.",
			Reply:       Code{554, Enhanced{5, 7, 1}},
			Scope:       ScopeTenant, Exit: ExitFailure,
		},
		{
			Slug: ScannerUnavailable, Stages: []Stage{StageData},
			Title:       "Content scanner unavailable",
			Sentence:    "Content scanner unavailable; try again later",
			Explanation: "Every message is scanned for malware, and the scanner does not answer at present. The provider has been alarmed; mail goes through on a later try.",
			Reply:       Code{451, Enhanced{4, 7, 1}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
	}
}

// platformReasons are our own trouble. They never blame the sender and are
// never permanent.
func platformReasons() []Reason {
	return []Reason{
		{
			Slug: QueueFull, Stages: []Stage{StageMail},
			Title:       "Queue full",
			Sentence:    "No room for more mail just now; try again later",
			Explanation: "The edge has no room to store more mail at present. Mail goes through on a later try.",
			Reply:       Code{452, Enhanced{4, 3, 1}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
		{
			Slug: DiskTrouble, Stages: []Stage{StageMail, StageCommit},
			Title:       "Mail cannot be stored",
			Sentence:    "Mail cannot be stored just now; try again later",
			Explanation: "The edge cannot store mail safely at present, so it takes no responsibility for it. The provider has been alarmed.",
			Reply:       Code{451, Enhanced{4, 3, 0}},
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
		{
			Slug: Internal, Stages: []Stage{StageConnect, StageAuth, StageMail, StageRcpt, StageData, StageCommit, StageAPI},
			Title:       "Internal error",
			Sentence:    "Something went wrong on our side; try again later",
			Explanation: "An error of ours. Quote the reference to support.",
			Reply:       Code{451, Enhanced{4, 3, 0}},
			Alternatives: []Alternative{
				{When: AtConnect, Code: Code{421, Enhanced{4, 3, 0}}},
			},
			HTTPStatus: 500,
			Retry:      true, Scope: ScopePlatform, Exit: ExitFailure,
		},
	}
}
