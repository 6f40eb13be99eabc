"""The literature that methods name in their `paper` field, as BibTeX entries by arXiv id, or by 'AUTHOR YEAR'."""

from __future__ import annotations

from dataclasses import dataclass, field

_NEURIPS, _CVPR = "Advances in Neural Information Processing Systems", "Computer Vision and Pattern Recognition (CVPR)"
_ICLR = "International Conference on Learning Representations (ICLR)"


@dataclass(frozen=True)
class Paper:
    """An entry of a bibliography; its texts are LaTeX.

    Args:
        key: by which a paper is cited.
        authors: joined by 'and'.
        title: with what must keep its capitals in braces.
        year: of the venue that is named, else of the first version.
        kind: `inproceedings`, `article` or `misc`.
        where: further fields: booktitle or journal, volume, number, pages.
    """

    key: str
    authors: str
    title: str
    year: int
    kind: str = "misc"
    where: dict[str, str] = field(default_factory=dict)


def _neurips(key: str, authors: str, title: str, year: int, volume: int) -> Paper:
    return Paper(key, authors, title, year, "inproceedings", {"booktitle": _NEURIPS, "volume": str(volume)})


def _at(booktitle: str, key: str, authors: str, title: str, year: int, pages: str = "") -> Paper:
    return Paper(
        key, authors, title, year, "inproceedings", {"booktitle": booktitle} | ({"pages": pages} if pages else {})
    )


def _in(journal: str, volume: int, number: int, pages: str) -> dict[str, str]:
    return {"journal": journal, "volume": str(volume), "number": str(number), "pages": pages}


PAPERS: dict[str, Paper] = {
    "1909.01520": _at(
        "Computer Vision and Pattern Recognition Workshops (CVPRW)",
        "hayes2020slda",
        "Hayes, Tyler L. and Kanan, Christopher",
        "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis",
        2020,
    ),
    "2307.02251": _neurips(
        "mcdonnell2023ranpac",
        "McDonnell, Mark D. and Gong, Dong and Parvaneh, Amin and Abbasnejad, Ehsan and van den Hengel, Anton",
        "{RanPAC}: Random Projections and Pre-trained Models for Continual Learning",
        2023,
        36,
    ),
    "2402.08823": _neurips(
        "prabhu2024randumb",
        "Prabhu, Ameya and Sinha, Shiven and Kumaraguru, Ponnurangam and Torr, Philip H. S. and Sener, Ozan and "
        "Dokania, Puneet K.",
        "{RanDumb}: Random Representations Outperform Online Continually Learned Representations",
        2024,
        37,
    ),
    "Mensink et al. 2013": Paper(
        "mensink2013ncm",
        "Mensink, Thomas and Verbeek, Jakob and Perronnin, Florent and Csurka, Gabriela",
        "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero Cost",
        2013,
        "article",
        _in("IEEE Transactions on Pattern Analysis and Machine Intelligence", 35, 11, "2624--2637"),
    ),
    "1312.6114": _at(
        _ICLR, "kingma2014vae", "Kingma, Diederik P. and Welling, Max", "Auto-Encoding Variational {Bayes}", 2014
    ),
    "1411.1792": _neurips(
        "yosinski2014transferable",
        "Yosinski, Jason and Clune, Jeff and Bengio, Yoshua and Lipson, Hod",
        "How Transferable Are Features in Deep Neural Networks?",
        2014,
        27,
    ),
    "1606.04671": Paper(
        "rusu2016progressive",
        "Rusu, Andrei A. and Rabinowitz, Neil C. and Desjardins, Guillaume and Soyer, Hubert and Kirkpatrick, "
        "James and Kavukcuoglu, Koray and Pascanu, Razvan and Hadsell, Raia",
        "Progressive Neural Networks",
        2016,
    ),
    "1606.09282": Paper(
        "li2018lwf",
        "Li, Zhizhong and Hoiem, Derek",
        "Learning without Forgetting",
        2018,
        "article",
        _in("IEEE Transactions on Pattern Analysis and Machine Intelligence", 40, 12, "2935--2947"),
    ),
    "1611.07725": _at(
        _CVPR,
        "rebuffi2017icarl",
        "Rebuffi, Sylvestre-Alvise and Kolesnikov, Alexander and Sperl, Georg and Lampert, Christoph H.",
        "{iCaRL}: Incremental Classifier and Representation Learning",
        2017,
    ),
    "1612.00796": Paper(
        "kirkpatrick2017ewc",
        "Kirkpatrick, James and Pascanu, Razvan and Rabinowitz, Neil and Veness, Joel and Desjardins, Guillaume "
        "and Rusu, Andrei A. and Milan, Kieran and Quan, John and Ramalho, Tiago and Grabska-Barwinska, Agnieszka "
        "and Hassabis, Demis and Clopath, Claudia and Kumaran, Dharshan and Hadsell, Raia",
        "Overcoming Catastrophic Forgetting in Neural Networks",
        2017,
        "article",
        _in("Proceedings of the National Academy of Sciences", 114, 13, "3521--3526"),
    ),
    "1703.04200": _at(
        "International Conference on Machine Learning (ICML)",
        "zenke2017si",
        "Zenke, Friedemann and Poole, Ben and Ganguli, Surya",
        "Continual Learning Through Synaptic Intelligence",
        2017,
        "3987--3995",
    ),
    "1705.08690": _neurips(
        "shin2017generative",
        "Shin, Hanul and Lee, Jung Kwon and Kim, Jaehong and Kim, Jiwon",
        "Continual Learning with Deep Generative Replay",
        2017,
        30,
    ),
    "1706.08840": _neurips(
        "lopezpaz2017gem",
        "Lopez-Paz, David and Ranzato, Marc'Aurelio",
        "Gradient Episodic Memory for Continual Learning",
        2017,
        30,
    ),
    "1711.05769": _at(
        _CVPR,
        "mallya2018packnet",
        "Mallya, Arun and Lazebnik, Svetlana",
        "{PackNet}: Adding Multiple Tasks to a Single Network by Iterative Pruning",
        2018,
        "7765--7773",
    ),
    "1711.09601": _at(
        "European Conference on Computer Vision (ECCV)",
        "aljundi2018mas",
        "Aljundi, Rahaf and Babiloni, Francesca and Elhoseiny, Mohamed and Rohrbach, Marcus and Tuytelaars, Tinne",
        "Memory Aware Synapses: Learning What (not) to Forget",
        2018,
    ),
    "1805.07810": _neurips(
        "ritter2018kronecker",
        "Ritter, Hippolyt and Botev, Aleksandar and Barber, David",
        "Online Structured {Laplace} Approximations for Overcoming Catastrophic Forgetting",
        2018,
        31,
    ),
    "1805.06370": _at(
        "International Conference on Machine Learning (ICML)",
        "schwarz2018progress",
        "Schwarz, Jonathan and Czarnecki, Wojciech and Luketina, Jelena and Grabska-Barwinska, Agnieszka and Teh, Yee "
        "Whye and Pascanu, Razvan and Hadsell, Raia",
        r"Progress \& Compress: A Scalable Framework for Continual Learning",
        2018,
        "4528--4537",
    ),
    "1810.11910": _at(
        _ICLR,
        "riemer2019mer",
        "Riemer, Matthew and Cases, Ignacio and Ajemian, Robert and Liu, Miao and Rish, Irina and Tu, Yuhai and "
        "Tesauro, Gerald",
        "Learning to Learn without Forgetting by Maximizing Transfer and Minimizing Interference",
        2019,
    ),
    "1812.00420": _at(
        _ICLR,
        "chaudhry2019agem",
        "Chaudhry, Arslan and Ranzato, Marc'Aurelio and Rohrbach, Marcus and Elhoseiny, Mohamed",
        "Efficient Lifelong Learning with {A-GEM}",
        2019,
    ),
    "1902.10486": Paper(
        "chaudhry2019tiny",
        "Chaudhry, Arslan and Rohrbach, Marcus and Elhoseiny, Mohamed and Ajanthan, Thalaiyasingam and Dokania, Puneet "
        "K. and Torr, Philip H. S. and Ranzato, Marc'Aurelio",
        "On Tiny Episodic Memories in Continual Learning",
        2019,
    ),
    "1911.13299": _at(
        _CVPR,
        "ramanujan2020hidden",
        "Ramanujan, Vivek and Wortsman, Mitchell and Kembhavi, Aniruddha and Farhadi, Ali and Rastegari, Mohammad",
        "What's Hidden in a Randomly Weighted Neural Network?",
        2020,
    ),
    "2201.00766": Paper(
        "boschini2022xder",
        "Boschini, Matteo and Bonicelli, Lorenzo and Buzzega, Pietro and Porrello, Angelo and Calderara, Simone",
        "Class-Incremental Continual Learning into the {eXtended DER-verse}",
        2022,
        "article",
        {"journal": "IEEE Transactions on Pattern Analysis and Machine Intelligence"},
    ),
    "2004.07211": _neurips(
        "buzzega2020der",
        "Buzzega, Pietro and Boschini, Matteo and Porrello, Angelo and Abati, Davide and Calderara, Simone",
        "Dark Experience for General Continual Learning: a Strong, Simple Baseline",
        2020,
        33,
    ),
    "2006.14769": _neurips(
        "wortsman2020supsup",
        "Wortsman, Mitchell and Ramanujan, Vivek and Liu, Rosanne and Kembhavi, Aniruddha and Rastegari, Mohammad and "
        "Yosinski, Jason and Farhadi, Ali",
        "Supermasks in Superposition",
        2020,
        33,
    ),
    "2104.05025": _at(
        _ICLR,
        "caccia2022erace",
        "Caccia, Lucas and Aljundi, Rahaf and Asadi, Nader and Tuytelaars, Tinne and Pineau, Joelle and Belilovsky, "
        "Eugene",
        "New Insights on Reducing Abrupt Representation Change in Online Continual Learning",
        2022,
    ),
    "1810.12488": Paper(
        "hsu2018reevaluating",
        "Hsu, Yen-Chang and Liu, Yen-Cheng and Ramasamy, Anita and Kira, Zsolt",
        "Re-evaluating Continual Learning Scenarios: A Categorization and Case for Strong Baselines",
        2018,
    ),
    "2308.11958": Paper(
        "kumar2023l2init",
        "Kumar, Saurabh and Marklund, Henrik and Van Roy, Benjamin",
        "Maintaining Plasticity in Continual Learning via Regenerative Regularization",
        2023,
    ),
    "2302.12902": _at(
        "International Conference on Machine Learning (ICML)",
        "sokar2023redo",
        "Sokar, Ghada and Agarwal, Rishabh and Castro, Pablo Samuel and Evci, Utku",
        "The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
        2023,
    ),
    "2108.06325": Paper(
        "dohare2021cbp",
        "Dohare, Shibhansh and Sutton, Richard S. and Mahmood, A. Rupam",
        "Continual Backprop: Stochastic Gradient Descent with Persistent Randomness",
        2021,
    ),
    "Dohare et al. 2024, Loss of plasticity (Nature)": Paper(
        "dohare2024plasticity",
        "Dohare, Shibhansh and Hernandez-Garcia, J. Fernando and Lan, Qingfeng and Rahman, Parash and Mahmood, A. "
        "Rupam and Sutton, Richard S.",
        "Loss of Plasticity in Deep Continual Learning",
        2024,
        "article",
        _in("Nature", 632, 8026, "768--774"),
    ),
    "1910.08475": _neurips(
        "ash2020shrink",
        "Ash, Jordan T. and Adams, Ryan P.",
        "On Warm-Starting Neural Network Training",
        2020,
        33,
    ),
    "1908.04742": _neurips(
        "aljundi2019mir",
        "Aljundi, Rahaf and Belilovsky, Eugene and Tuytelaars, Tinne and Charlin, Laurent and Caccia, Massimo and Lin, "
        "Min and Page-Caccia, Lucas",
        "Online Continual Learning with Maximally Interfered Retrieval",
        2019,
        32,
    ),
    "1911.07053": _at(
        _CVPR,
        "zhao2020wa",
        "Zhao, Bowen and Xiao, Xi and Gan, Guojun and Zhang, Bin and Xia, Shu-Tao",
        "Maintaining Discrimination and Fairness in Class Incremental Learning",
        2020,
    ),
    "2201.12604": _at(
        _ICLR,
        "arani2022clser",
        "Arani, Elahe and Sarfraz, Fahad and Zonooz, Bahram",
        "Learning Fast, Learning Slow: A General Continual Learning Method based on Complementary Learning System",
        2022,
    ),
    "Prabhu et al. 2020, GDumb (ECCV)": _at(
        "European Conference on Computer Vision (ECCV)",
        "prabhu2020gdumb",
        "Prabhu, Ameya and Torr, Philip H. S. and Dokania, Puneet K.",
        "{GDumb}: A Simple Approach that Questions Our Progress in Continual Learning",
        2020,
    ),
    "Robins 1995": Paper(
        "robins1995rehearsal",
        "Robins, Anthony",
        "Catastrophic Forgetting, Rehearsal and Pseudorehearsal",
        1995,
        "article",
        _in("Connection Science", 7, 2, "123--146"),
    ),
}
"""Venue, volume and pages only where they are certain; the arXiv id is in each entry that has one."""
